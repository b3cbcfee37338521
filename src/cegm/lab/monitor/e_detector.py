"""The Shiryaev-Roberts e-detector: evidence that something has changed at any time so far, with a promise about false alarms.

While nothing has changed, a factor L_n is a bet at fair odds: it is never negative, and its mean, given all before, is at most 1. Such bets
are added up over every moment at which a change may have begun,

    R_n = sum over j <= n of L_j ... L_n = (R_{n-1} + 1) L_n,    R_0 = 0,

and an alarm is given when R_n reaches a threshold c (Shin, Ramdas & Rinaldo 2022, arXiv 2203.03532). Why the mean number of requests until
a false alarm is at least c: given the past, the mean of R_n is at most R_{n-1} + 1, so R_n - n falls on average, and by optional stopping
the mean of R at the alarm is at most the mean time T of the alarm. R is at least c then, so E[T] >= c. The mean of several R, one for each
kind of bet, keeps the argument as it is. CUSUM, max(R, 1) L, keeps it too and is never larger: it would only be later.

With k detectors each gets the threshold k c. Where every bet is fair given the past of all of them, the mean over the k is such an R with
the threshold c: the promise stands for the first of all false alarms. Whatever they have to do with each other, each
alarms within n requests with a probability of at most n / (k c), by the same argument stopped at n; so one of them does with at most n / c,
and the mean time is at least c / 2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Factors = npt.NDArray[np.float64]
"""What each of several bets has made of one request, (bets,)."""


class ShiryaevRoberts:
    """Evidence of one detector, the mean over its bets.

    Args:
        bets: How many it makes at once.
    """

    def __init__(self, bets: int) -> None:
        self._sums = np.zeros(bets)

    def add(self, factors: Factors) -> float:
        """Evidence after one request more."""
        self._sums = (self._sums + 1.0) * factors
        return float(self._sums.mean())

"""Bets that numbers have become larger, smaller, or more spread: lengths, margins, bits per byte.

A p-value is made a normal score z, which is standard normal while nothing has changed; a bet is the ratio of another normal density to
that one at z, so its mean is 1. It is a bet on ranks: what the numbers are distributed like does not matter.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from cegm.lab.monitor.conformal import Bag
from cegm.lab.monitor.e_detector import Factors

KINDS = [(shift, 1.0) for shift in (-1.4, -0.7, -0.35, 0.35, 0.7, 1.4)] + [(0.0, 1.5), (0.0, 2.5)]
"""Shift and spread of the densities that are bet on, in standard deviations of what was."""

SHIFTS, SPREADS = np.array(KINDS).T
NARROWEST = 1e-12
"""p-values next to 0 and 1 are taken for this far from them, to have a score. A bet on spread loses .4 % by it, and none wins."""

STANDARD = NormalDist()


class Shift:
    """Bets on a shift or on spread."""

    bets = len(KINDS)

    def __init__(self, bag: Bag) -> None:
        self._bag = bag

    def factors(self, value: float) -> Factors:
        """What each bet pays for the next number."""
        score = -STANDARD.inv_cdf(min(max(self._bag.add(value), NARROWEST), 1.0 - NARROWEST))
        return np.asarray(np.exp(score**2 / 2 - ((score - SHIFTS) / SPREADS) ** 2 / 2) / SPREADS)

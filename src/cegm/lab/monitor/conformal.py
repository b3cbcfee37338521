"""Conformal p-values: where a number stands among those before it, which no one has to have a model of.

The p-value of the n-th number is the share of the n numbers so far that are larger, itself included, equal ones in an order drawn by lot.
As long as numbers are exchangeable, p-values are independent and uniform on (0, 1), exactly, from the first on and whatever the numbers are
distributed like (Vovk, Gammerman & Shafer 2005). So a bet at fair odds is any function of p that is never negative and integrates to 1; its
products are conformal test martingales, and the Shiryaev-Roberts sum over them gives the alarm (Vovk et al. 2021, arXiv 2102.10439). The
promise is an average over what the reference may have been: after one that was not typical, false alarms come sooner or later.

Numbers that come later join those before. That is what makes the promise exact, and what a slow change hides in: it should be found
before as many requests have come as the reference has.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable


class Bag:
    """All numbers so far.

    Args:
        values: Those of the reference.
        seed: Of the lots, so that whoever reads the same log again sees the same.
    """

    def __init__(self, values: Iterable[float], seed: str) -> None:
        self._sorted = sorted(values)
        self._lots = random.Random(seed)

    def add(self, value: float) -> float:
        """p-value of a number, which joins the others: near 0 for one larger than nearly all of them, near 1 for one smaller."""
        low, high = bisect_left(self._sorted, value), bisect_right(self._sorted, value)
        self._sorted.insert(high, value)
        larger, equal = len(self._sorted) - 1 - high, high - low + 1
        return (larger + self._lots.random() * equal) / len(self._sorted)

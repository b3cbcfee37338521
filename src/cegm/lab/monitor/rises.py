"""Bets that something which happens now and then has become more frequent, with no limit given and none estimated.

Where ones and zeros are exchangeable with share q of ones, the p-values of ones lie in (0, q) and those of zeros above, so that more
ones mean more p-values below q. A bet with the threshold t and the times r pays r below t and (1 - r t) / (1 - t) above, whose mean over
(0, 1) is 1. Not knowing q, which must not be looked up in the same numbers, it is bet on every threshold of a grid.
"""

from __future__ import annotations

import numpy as np

from cegm.lab.monitor.conformal import Bag
from cegm.lab.monitor.e_detector import Factors

GRID = [
    (threshold, times)
    for threshold in 0.4 * 0.5 ** np.arange(9)
    for times in (1.5, 2.0, 4.0, 8.0)
    if threshold * times < 0.95
]
"""Shares from .16 % to 40 %, and how many times as many."""

THRESHOLDS, TIMES = np.array(GRID).T
ABOVE = (1.0 - TIMES * THRESHOLDS) / (1.0 - THRESHOLDS)


class Rise:
    """Bets on more ones among zeros."""

    bets = len(GRID)

    def __init__(self, bag: Bag) -> None:
        self._bag = bag

    def factors(self, value: float) -> Factors:
        """What each bet pays for the next number."""
        return np.where(self._bag.add(value) < THRESHOLDS, TIMES, ABOVE)

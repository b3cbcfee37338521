"""Bets that something happens more often than it may: a failure, an answer that took too long.

That it happens in at most a share q of requests, whatever was before, is what they bet against. A bet on r times q pays r when it happens and
(1 - r q) / (1 - q) when it does not: its mean is 1 at q and less below it. So the promise asks for nothing but that q is kept to.
"""

from __future__ import annotations

import math

import numpy as np

from cegm.lab.monitor.e_detector import Factors

FIRST_TIMES = 1.5
"""The smallest excess that is bet on, in times what is allowed; further bets double it as far as a share can go."""

LARGEST = 0.95
"""Of the shares that are bet on."""

DOUBT = 0.01
"""Probability that a limit taken from a sample is below the true share."""


class Limit:
    """Bets against a share that is allowed.

    Args:
        allowed: Share of requests in which it may happen, above 0 and below `LARGEST` / `FIRST_TIMES`.

    Raises:
        ValueError: Another share.
    """

    def __init__(self, allowed: float) -> None:
        most = LARGEST / FIRST_TIMES
        if not 0.0 < allowed < most:
            raise ValueError(f"allowed={allowed:g} leaves nothing to bet on; give a share above 0 and below {most:.2f}")
        self.allowed = allowed
        doublings = math.floor(math.log2(most / allowed))
        times: Factors = FIRST_TIMES * np.exp2(np.arange(doublings + 1, dtype=np.float64))
        self._paid: dict[bool, Factors] = {True: times, False: (1.0 - times * allowed) / (1.0 - allowed)}
        self.bets = len(times)

    def factors(self, happened: bool) -> Factors:
        """What each bet pays."""
        return self._paid[happened]


def upper_limit(count: int, requests: int) -> float:
    """A share that is above the true one up to a probability of `DOUBT`, from how often it happened (Chernoff's bound, inverted)."""
    share, budget = count / requests, -math.log(DOUBT) / requests
    low, high = share, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _divergence(share, middle) < budget else (low, middle)
    return high


def _divergence(share: float, other: float) -> float:
    """Kullback-Leibler divergence between two coins, nats."""
    parts = ((share, other), (1.0 - share, 1.0 - other))
    return sum(own * math.log(own / its) for own, its in parts if own > 0.0)

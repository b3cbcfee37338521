"""The decision: what an effect earns, how sure that is, what more evidence would be worth, and one of three words.

An effect d is a difference in the share of right answers. Over N requests it earns N (V d - c) - C, with V the value of a right answer, c
what a request costs more, and C what is paid once. With m and s the mean and standard error of that over n paired seeds:

- probability of profit: Student's t with n - 1 degrees of freedom at m / s;
- value of perfect information: s (phi(u) - u Phi(-u)) with u = |m| / s, what knowing m exactly saves on average where one decides by
  its sign; of n' more seeds the same with s sqrt(n' / (n + n')), by which the mean will move (Raiffa & Schlaifer 1961).

The interval is Student's t at any number of seeds, not the bootstrap that a comparison takes from eight on: probability and interval have
to agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from cegm.lab.pilot.money import Money

Word = Literal["GO", "HOLD", "STOP"]

SURE = 0.95
"""Probability of profit that GO takes."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Decision:
    """What a number of paired differences comes to.

    Attributes:
        word: GO, HOLD or STOP.
        effect: Mean difference in the share of right answers.
        low: Lower end of its 95 % interval.
        high: Upper end.
        net: What the effect earns; with `net_low` and `net_high`, the same of the interval.
        net_low: What `low` earns.
        net_high: What `high` earns.
        probability: Of a profit.
        break_even_requests: Requests until it has paid for itself; None if never.
        perfect_information: The most that knowing the effect exactly would be worth.
        more_information: The most that as many differences again would be worth.
        count: Differences.
    """

    word: Word
    effect: float
    low: float
    high: float
    net: float
    net_low: float
    net_high: float
    probability: float
    break_even_requests: float | None
    perfect_information: float
    more_information: float
    count: int


def decide(differences: Sequence[float], money: Money, smallest_worthwhile: float) -> Decision:
    """Judges paired differences, each of one seed or of one item.

    Args:
        differences: In the share of right answers, at least two.
        money: What they are worth.
        smallest_worthwhile: Effect below which nothing is to be changed.

    Returns:
        GO where a profit has a probability of at least `SURE` and the interval lies above the smallest worthwhile effect, STOP where it
        lies below, else HOLD.

    Raises:
        ValueError: Fewer than two differences, or one that is not finite.
    """
    points = np.asarray(differences, dtype=np.float64)
    if len(points) < 2 or not np.isfinite(points).all():
        raise ValueError(f"differences={list(differences)} must be two finite numbers or more; run more seeds")
    effect, error = float(points.mean()), float(points.std(ddof=1)) / math.sqrt(len(points))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(points) - 1)) * error
    low, high = effect - half, effect + half
    net, net_error = money.net(effect), money.requests * money.value * error
    probability = probability_of_profit(net, net_error, len(points))
    word: Word = "HOLD"
    if probability >= SURE and low > smallest_worthwhile:
        word = "GO"
    elif high < smallest_worthwhile:
        word = "STOP"
    return Decision(
        word,
        effect,
        low,
        high,
        net,
        money.net(low),
        money.net(high),
        probability,
        money.break_even_requests(effect),
        perfect_information(net, net_error),
        more_information(net, net_error, len(points), len(points)),
        len(points),
    )


def probability_of_profit(net: float, error: float, count: int) -> float:
    """That the true net is above zero, given its mean and standard error over so many differences; without spread, by its sign."""
    if error == 0.0:
        return float(np.heaviside(net, 0.5))
    return float(stats.t.cdf(net / error, count - 1))


def perfect_information(net: float, error: float) -> float:
    """What knowing the true net exactly would be worth to whoever goes by its sign."""
    if error == 0.0:
        return 0.0
    distance = abs(net) / error
    return float(error * (stats.norm.pdf(distance) - distance * stats.norm.sf(distance)))


def more_information(net: float, error: float, count: int, more: int) -> float:
    """What `more` differences beside `count` would be worth: of what is unknown, they tell a part."""
    return perfect_information(net, error * math.sqrt(more / (count + more)))

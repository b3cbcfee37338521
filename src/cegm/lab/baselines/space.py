"""Where a method is searched: ranges on logarithmic scales, a first trial, and what all trials share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

KNOBS = ("learning_rate", "weight_decay", "one_minus_momentum")
"""What is searched. The second is what holds weights back: for those that are held to their beginning, how strongly. The last is the
weight of the newest gradient: 1 - beta1 of AdamW, `entanglement` of CEGM."""

EDGE = 0.1
"""A point lies at an edge when it is closer to it than this part of the range, on the logarithmic scale."""

LEAST_MOMENTUM = 0.9
"""Upper end of `one_minus_momentum`: some methods divide by the momentum."""

WIDER = 2.0
"""The factor by which a range grows at an edge."""

Range = tuple[float, float]
Point = Mapping[str, float]


@dataclass(frozen=True)
class Space:
    """Where one method is searched.

    Attributes:
        ranges: Lowest and highest value of each of `KNOBS`, above 0.
        start: The first trial.
        fixed: Options that all trials share.
    """

    ranges: dict[str, Range]
    start: dict[str, float]
    fixed: dict[str, Any]

    def around(self, rate: float, aux_lr: float) -> Space:
        """The space with its learning rates about another one, as they lay about that of its start."""
        low, high = self.ranges["learning_rate"]
        factor = rate / self.start["learning_rate"]
        return Space(
            {**self.ranges, "learning_rate": (factor * low, factor * high)},
            {**self.start, "learning_rate": rate},
            {**self.fixed, "aux_lr": aux_lr},
        )

    def under(self, shared: Mapping[str, Any]) -> Space:
        """The space with its fixed options as the user wants them."""
        return replace(self, fixed={name: shared.get(name, value) for name, value in self.fixed.items()})

    def widened(self, best: Point) -> Space:
        """The space with every range doubled at whose edge `best` lies; the same space when it lies at none."""
        ranges = {name: _widened(*self.ranges[name], best[name]) for name in KNOBS}
        low, high = ranges["one_minus_momentum"]
        ranges["one_minus_momentum"] = low, min(high, LEAST_MOMENTUM)
        return replace(self, ranges=ranges)


def usual(
    rates: Range, first: float, newest: float, decays: Range = (0.02, 0.5), decay: float = 0.1, **fixed: Any
) -> Space:
    """A space for models of about a million parameters: rates and decays, and the rate, momentum and decay of its start."""
    return Space(
        {"learning_rate": rates, "weight_decay": decays, "one_minus_momentum": (0.03, 0.3)},
        {"learning_rate": first, "weight_decay": decay, "one_minus_momentum": newest},
        {"aux_lr": 0.003, **fixed},
    )


def _widened(low: float, high: float, value: float) -> Range:
    place = math.log(value / low) / math.log(high / low)
    return (low / WIDER if place < EDGE else low), (high * WIDER if place > 1 - EDGE else high)

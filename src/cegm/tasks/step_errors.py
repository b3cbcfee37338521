"""Wrong steps that accuracy at the first step implies, beside which measured ones are to be judged (the paper's figure 5)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Implied:
    """Wrong steps expected up to each step from accuracy at the first one.

    Attributes:
        apart: If every step goes wrong on its own, as under teacher forcing.
        carried: If every step goes on from the state before it and an error is never made good.
    """

    apart: list[float]
    carried: list[float]


def implied_wrong_steps(first: float, steps: int) -> Implied:
    """Curves that accuracy `first` (0 to 1) at the first step implies, if the errors of different steps are independent."""
    apart = list(accumulate([1 - first] * steps))
    return Implied(apart, list(accumulate(1 - first**step for step in range(1, steps + 1))))

"""Axes whose real form has several public sets: what is there is measured, what is not is told."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from cegm.tasks.axis import NotMeasured, stable_seed

Thing = TypeVar("Thing")


def available(parts: Mapping[str, Callable[[], list[Thing]]]) -> list[Thing]:
    """What all public sets give that are there: items or records; each that is not is warned of, and the others go on.

    Args:
        parts: Subset -> what reads or measures it.

    Raises:
        NotMeasured: None gave anything.
    """
    found: list[Thing] = []
    reasons = []
    for name, part in parts.items():
        try:
            found += part()
        except NotMeasured as error:
            reasons.append(f"{name} was not measured: {error}")
    if not found:
        raise NotMeasured("; ".join(reasons) or "there is nothing to measure")
    for reason in reasons:
        warnings.warn(reason, stacklevel=3)
    return found


def shuffled(things: Sequence[Thing], *parts: object) -> list[Thing]:
    """The same order for every model, from names and numbers: the first n are a sample of n, and part of the first n + 1."""
    order = list(things)
    random.Random(stable_seed(*parts)).shuffle(order)
    return order

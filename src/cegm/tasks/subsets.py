"""Axes whose real form has several public sets: what is there is measured, what is not is told."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from cegm.tasks.axis import NotMeasured, Record, stable_seed

Thing = TypeVar("Thing")


def measured_subsets(parts: Mapping[str, Callable[[], list[Record]]]) -> list[Record]:
    """Measures each subset; one that cannot be measured is warned of, the others go on.

    Args:
        parts: Subset -> what measures it.

    Raises:
        NotMeasured: None could be.
    """
    records: list[Record] = []
    reasons = []
    for name, measured in parts.items():
        try:
            records += measured()
        except NotMeasured as error:
            reasons.append(f"{name} was not measured: {error}")
    if not records:
        raise NotMeasured("; ".join(reasons) or "there is nothing to measure")
    for reason in reasons:
        warnings.warn(reason, stacklevel=3)
    return records


def shuffled(things: Sequence[Thing], *parts: object) -> list[Thing]:
    """The same order for every model, from names and numbers: the first n are a sample of n, and part of the first n + 1."""
    order = list(things)
    random.Random(stable_seed(*parts)).shuffle(order)
    return order

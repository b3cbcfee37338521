"""What is asked of a model and what came of it, the same for every axis; and how items are drawn, the same for every model."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, TypeVar

WORLD = "world"

Source = str | Path
"""`world` for the generated form, or a folder of public sets for the real one."""

Form = Literal["generated", "real"]
Thing = TypeVar("Thing")


class NotMeasured(ValueError):
    """An axis cannot be measured here; one line says why and what would help. The other axes go on."""


@dataclass(frozen=True)
class Record:
    """One scored item, the same for every axis and form.

    Attributes:
        axis: Name of the axis.
        form: `generated` or `real`.
        subset: Part of the axis that is reported apart, such as a public set or a technique; empty for none.
        item: Name within axis, subset and level; the same for every model, so that items can be paired.
        cluster: Items of one cluster stand or fall together (a story, a schema, a document).
        level: Difficulty, such as a length, a depth or a share of noise; 0 where the axis has none.
        score: The primary measure of this item, in the unit of the axis (0 or 1 for accuracies).
        continuous: A finer measure of the same thing, such as a log-probability margin in nats.
        chance: Expected `score` of guessing; NaN where guessing has no meaning.
        readable: Whether an answer could be read at all; likelihoods always can.
    """

    axis: str
    form: Form
    subset: str
    item: str
    cluster: str
    level: float
    score: float
    continuous: float
    chance: float
    readable: bool = True


@dataclass(frozen=True)
class Choice:
    """A question answered by likelihood.

    Attributes:
        context: What is read first.
        options: What may follow, each with the white space in front of it. By convention the right one comes first.
        tail: What follows the option, with its white space. If there is one, its likelihood counts instead of the
            option's (Winograd's "partial" scoring, Trinh & Le 2018, arXiv 1806.02847).
    """

    context: str
    options: tuple[str, ...]
    tail: str = ""


@dataclass(frozen=True)
class Item:
    """A choice with its place in an axis; `Record` tells what subset, item, cluster and level are.

    With `per_byte`, log-probabilities are divided by the bytes of their option, for free texts of different length.
    """

    choice: Choice
    subset: str
    item: str
    cluster: str
    level: float = 0.0
    per_byte: bool = False


def form_of(source: Source) -> Form:
    """Which form of an axis a source asks for."""
    return "generated" if source == WORLD else "real"


def stable_seed(*parts: Any) -> int:
    """A seed from names and numbers, the same on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big")


def shuffled(things: Sequence[Thing], *parts: object) -> list[Thing]:
    """Things in an order that names and numbers decide, for every model alike: the first n are a sample, and part of the first n + 1."""
    order = list(things)
    random.Random(stable_seed(*parts)).shuffle(order)
    return order


def spread(groups: Sequence[Sequence[Thing]], count: int, rng: random.Random) -> list[Thing]:
    """`count` members drawn at random, as evenly over the groups as their sizes allow; all where there are fewer."""
    drawn = [rng.sample(list(group), len(group)) for group in groups]
    gone = object()
    turns = [member for turn in zip_longest(*drawn, fillvalue=gone) for member in turn if member is not gone]
    return turns[:count]  # type: ignore[return-value]


def available(parts: Mapping[str, Callable[[], list[Thing]]]) -> list[Thing]:
    """What all public sets give that are there: items or records; each that is not is warned of, and the others go on.

    Args:
        parts: Subset -> what reads or measures it.

    Raises:
        NotMeasured: None gave anything.
    """
    things: list[Thing] = []
    reasons = []
    for name, part in parts.items():
        try:
            things += part()
        except NotMeasured as error:
            reasons.append(f"{name} was not measured: {error}")
    if not things:
        raise NotMeasured("; ".join(reasons) or "there is nothing to measure")
    for reason in reasons:
        warnings.warn(reason, stacklevel=3)
    return things

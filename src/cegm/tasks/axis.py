"""What every axis of the paper states about itself, and the record that every one of them yields."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cegm.tasks.examinee import Examinee

WORLD = "world"

Source = str | Path
"""`world` for the generated form, or a folder of public sets for the real one."""


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
    form: Literal["generated", "real"]
    subset: str
    item: str
    cluster: str
    level: float
    score: float
    continuous: float
    chance: float
    readable: bool = True


@dataclass(frozen=True)
class Axis:
    """One axis of the paper.

    Attributes:
        name: Key in records, files and flags.
        title: In words.
        paper: Where the paper reports it, such as `Table I`.
        measure: Primary measure, in words with its unit.
        unit: `accuracy`, `similarity`, `bits per byte` or `wrong steps`.
        better: Which direction is good.
        level: What a level is, in words; empty where there is one only.
        control: A trivial answerer, and what it gets.
        measured: `measured(examinee, source, items, seed)` scores `items` items per level (fewer where a public set has
            fewer); raises `NotMeasured`.
        primary: Subsets that make up the primary measure; empty for all of them. The others are exploratory.
        sets: Folders of the public sets that its real form reads; results belong to their content.
    """

    name: str
    title: str
    paper: str
    measure: str
    unit: str
    better: Literal["higher", "lower"]
    level: str
    control: str
    measured: Callable[[Examinee, Source, int, int], list[Record]]
    primary: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()


def form_of(source: Source) -> Literal["generated", "real"]:
    """Which form of an axis a source asks for."""
    return "generated" if source == WORLD else "real"


def public(source: Source, *parts: str) -> Path:
    """A file or folder of a public set below the source.

    Raises:
        NotMeasured: It is not there.
    """
    path = Path(source, *parts)
    if not path.exists():
        raise NotMeasured(f"{path} does not exist; docs/axes.md tells which public sets an axis reads")
    return path


def stable_seed(*parts: Any) -> int:
    """A seed from names and numbers, the same on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big")

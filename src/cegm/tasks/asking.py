"""From questions with options to records: what the axes that are answered by likelihood share."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, TypeVar

from cegm.tasks.axis import NotMeasured, Record, stable_seed
from cegm.tasks.examinee import Choice, Examinee
from cegm.world import Exam

T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """A choice with its place in an axis; see `Record` for the fields.

    Attributes:
        choice: The right option comes first.
        subset: Part of the axis.
        item: Name within subset and level.
        cluster: What it stands or falls with.
        level: Difficulty.
        per_byte: Whether log-probabilities are divided by the bytes of their option, for free texts of different length.
    """

    choice: Choice
    subset: str
    item: str
    cluster: str
    level: float = 0.0
    per_byte: bool = False


def scored(examinee: Examinee, axis: str, form: Literal["generated", "real"], items: Sequence[Item]) -> list[Record]:
    """A record per item that the examinee can read, and a warning about how many it cannot.

    Right is the first option if it is strictly the most likely; the margin to the best other one is in nats, or in nats per byte.

    Args:
        examinee: Who answers.
        axis: Its name.
        form: Its form.
        items: All that is asked, in one call.

    Raises:
        NotMeasured: No item is short enough.
    """
    fit = _fitting(examinee, items)
    found = examinee.choose([item.choice for item in fit])
    return [record(axis, form, item, own) for item, own in zip(fit, found, strict=True)]


def record(axis: str, form: Literal["generated", "real"], item: Item, likelihoods: Sequence[float]) -> Record:
    """The record of an item whose options have these log-probabilities."""
    sizes = [len(option.encode()) if item.per_byte else 1 for option in item.choice.options]
    normal = [likelihood / size for likelihood, size in zip(likelihoods, sizes, strict=True)]
    margin, chance = normal[0] - max(normal[1:]), 1 / len(normal)
    return Record(axis, form, item.subset, item.item, item.cluster, item.level, float(margin > 0), margin, chance)


def spread(groups: Sequence[Sequence[T]], count: int, rng: random.Random) -> list[T]:
    """`count` members drawn at random, as evenly over the groups as their sizes allow; all where there are fewer."""
    drawn = [rng.sample(list(group), len(group)) for group in groups]
    gone = object()
    turns = [member for turn in zip_longest(*drawn, fillvalue=gone) for member in turn if member is not gone]
    return turns[:count]  # type: ignore[return-value]


def generated(
    axis: str, exam: Callable[[random.Random, int], Exam], levels: Iterable[int], items: int, seed: int
) -> list[Item]:
    """`items` exams of the world at every level, each drawn from a seed of its own.

    Args:
        axis: Name of the axis; part of the seeds.
        exam: Draws one at a level.
        levels: All levels.
        items: Exams per level.
        seed: Decides all of them.
    """
    found = []
    for level in levels:
        for index in range(items):
            drawn = exam(random.Random(stable_seed(axis, seed, level, index)), level)
            choice = Choice(drawn.context, drawn.options, drawn.tail)
            found.append(Item(choice, "", str(index), drawn.cluster or f"{level}-{index}", level))
    return found


def _fitting(examinee: Examinee, items: Sequence[Item]) -> list[Item]:
    """Items whose every row the examinee can read; a warning says how many others there are."""
    limit = examinee.positions
    if limit is None:
        return list(items)
    fit = [item for item in items if _longest(examinee, item.choice) <= limit]
    if not fit:
        raise NotMeasured(f"every question is longer than the {limit} tokens this model reads; use a longer context")
    if len(fit) < len(items):
        left = len(items) - len(fit)
        warnings.warn(f"{left} of {len(items)} questions are longer than the model's {limit} positions", stacklevel=3)
    return fit


def _longest(examinee: Examinee, choice: Choice) -> int:
    """Tokens of the longest row, without the last one, which is never read."""
    texts = [choice.context + option + choice.tail for option in choice.options]
    rows = examinee.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return len(examinee.opening()) + max(map(len, rows)) - 1

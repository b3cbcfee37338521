"""What every axis of the paper states about itself, and the loop of those that are answered by choosing among options."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from cegm.lab.tasks.items import Choice, Form, Item, NotMeasured, Record, Source, available, form_of, stable_seed

if TYPE_CHECKING:
    from cegm.lab.tasks.examinee import Examinee
    from cegm.lab.world import Exam

Measured = Callable[["Examinee", Source, int, int], list[Record]]
"""Scores so many items per level (fewer where a public set has fewer), drawn by a seed; raises `NotMeasured`."""

PILOT = "pilot"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of the paper.

    Attributes:
        name: Key in records, files and flags; its module is called so, too.
        title: In words.
        paper: Where the paper reports it, such as `Table I`; `pilot` where it does not: such axes are measured when they are
            named, those without options on real text only.
        measure: Primary measure, in words with its unit.
        unit: `accuracy`, `similarity`, `bits per byte`, `nats per token` or `wrong steps`.
        better: Which direction is good.
        level: What a level is, in words; empty where there is one only.
        control: A trivial answerer, and what it gets.
        measured: How it is measured.
        primary: Subsets that make up the primary measure; empty for all of them. The others are exploratory.
        sets: Folders of the public sets that its real form reads; results belong to their content.
        no_task: Why the evaluation harness cannot ask it; of axes without questions and options.
    """

    name: str
    title: str
    paper: str
    measure: str
    control: str
    unit: str = "accuracy"
    better: Literal["higher", "lower"] = "higher"
    level: str = ""
    measured: Measured | None = None
    primary: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    no_task: str = "it asks no questions with options"

    def examine(self, examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
        """Scores `items` items per level, drawn by `seed`.

        Raises:
            NotMeasured: The public sets are missing or damaged, the model reads too little, or there is no such form.
        """
        assert self.measured is not None, "an axis without options has a way of its own"
        if self.paper == PILOT and form_of(source) == "generated":
            raise NotMeasured(f"{self.name} is a pilot on real text; give a folder with {', '.join(self.sets)}")
        return self.measured(examinee, source, items, seed)


@dataclass(frozen=True, kw_only=True)
class ChoiceAxis(Axis):
    """An axis that asks questions with options and scores them by likelihood.

    Attributes:
        generated: Draws so many items per level of the world, by a seed.
        real: Part of the public sets -> what reads and draws its items: of a source, so many, by a seed; or why there are none.
        apart: Whether the parts of the real form are answered one by one, so that one without a short enough question leaves
            the others.
        besides: Parts of the real form that are no choice, by name: each is measured as `Measured` says.
        measured: In place of the loop, where answers lead to other questions or belong together.
    """

    generated: Callable[[int, int], list[Item]]
    real: Callable[[Source, int, int], Mapping[str, Callable[[], list[Item]]]] | str
    apart: bool = False
    besides: Mapping[str, Measured] | None = None

    def questions(self, source: Source, items: int, seed: int) -> list[Item]:
        """All that is asked with options, whoever answers.

        Raises:
            NotMeasured: No public set could be read.
        """
        return (
            self.generated(items, seed)
            if form_of(source) == "generated"
            else available(self._parts(source, items, seed))
        )

    def _parts(self, source: Source, items: int, seed: int) -> Mapping[str, Callable[[], list[Item]]]:
        if isinstance(self.real, str):
            raise NotMeasured(self.real)
        return self.real(source, items, seed)

    def examine(self, examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
        """Scores `items` items per level, or per part of the public sets, drawn by `seed`; raises as `Axis.examine` does."""
        form = form_of(source)
        if self.measured is not None:
            return self.measured(examinee, source, items, seed)
        if form == "generated" or not self.apart:
            return scored(examinee, self.name, form, self.questions(source, items, seed))

        def answered(draw: Callable[[], list[Item]]) -> list[Record]:
            return scored(examinee, self.name, form, draw())

        others = {name: partial(each, examinee, source, items, seed) for name, each in (self.besides or {}).items()}
        return available(
            {**others, **{name: partial(answered, draw) for name, draw in self._parts(source, items, seed).items()}}
        )


def scored(examinee: Examinee, axis: str, form: Form, items: Sequence[Item]) -> list[Record]:
    """A record per item that the examinee can read, and a warning about how many it cannot; all are asked in one call.

    Raises:
        NotMeasured: No item is short enough.
    """
    fit = _fitting(examinee, items)
    answers = examinee.choose([item.choice for item in fit])
    return [record(axis, form, item, likelihoods) for item, likelihoods in zip(fit, answers, strict=True)]


def record(axis: str, form: Form, item: Item, likelihoods: Sequence[float]) -> Record:
    """The record of an item whose options have these log-probabilities.

    Right is the first option if it is strictly the most likely; the margin to the best other one is in nats, or in nats per byte.
    """
    sizes = [len(option.encode()) if item.per_byte else 1 for option in item.choice.options]
    normal = [likelihood / size for likelihood, size in zip(likelihoods, sizes, strict=True)]
    margin, chance = normal[0] - max(normal[1:]), 1 / len(normal)
    return Record(axis, form, item.subset, item.item, item.cluster, item.level, float(margin > 0), margin, chance)


def exams(
    axis: str, exam: Callable[[random.Random, int], Exam], levels: Iterable[int], items: int, seed: int
) -> list[Item]:
    """`items` exams of the world at every level, each drawn from a seed of its own."""
    questions = []
    for level in levels:
        for index in range(items):
            drawn = exam(random.Random(stable_seed(axis, seed, level, index)), level)
            choice = Choice(drawn.context, drawn.options, drawn.tail)
            questions.append(Item(choice, "", str(index), drawn.cluster or f"{level}-{index}", level))
    return questions


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
    return len(examinee.opening) + max(map(len, rows)) - 1

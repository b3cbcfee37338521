"""Errors over ten steps: how wrong states build up when a model goes on from its own answers (the paper's figure 5).

- *Generated*: journeys of ten stages in the embedded world; after each one the state (a place) is chosen among options. *Free-running*, the
  option that the model chose is written down and read on; *teacher-forced*, the right one is.
- *Real*: none. No public set here has items of ten steps with the state after each (GSM8K's solutions, arXiv 2110.14168, are shorter and
  are texts).

Traps: errors add up even where none leads to another, so a rising curve proves nothing; `implied_wrong_steps` gives the two curves that
accuracy at the first step implies. Later steps have longer contexts too: what a model's own errors do is the difference of free and forced.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from cegm.lab import world
from cegm.lab.tasks.axis import ChoiceAxis, record
from cegm.lab.tasks.items import Choice, Item, NotMeasured, Record, Source, form_of, stable_seed

if TYPE_CHECKING:
    from cegm.lab.tasks.examinee import Examinee

NAME = "steps"
STEPS = 10
MODES = ("free", "forced")
NO_PUBLIC_SET = "no public set has items of ten steps with the state after each; use the generated form"


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """A record per journey, mode and step: whether the state is the right one. All journeys go in step."""
    if form_of(source) == "real":
        raise NotMeasured(NO_PUBLIC_SET)
    journeys = _journeys(items, seed)
    texts = {(mode, index): journey.context for mode in MODES for index, journey in enumerate(journeys)}
    records = []
    for number in range(STEPS):
        asked = {}
        for (mode, index), text in texts.items():
            step = journeys[index].steps[number]
            choice = Choice(text + step.instruction, step.options)
            asked[mode, index] = Item(choice, mode, str(index), str(index), number + 1)
        answers = examinee.choose([item.choice for item in asked.values()])
        for (key, item), likelihoods in zip(asked.items(), answers, strict=True):
            records.append(record(NAME, "generated", item, likelihoods))
            chosen = 0 if item.subset == "forced" else _chosen(likelihoods)
            closing = journeys[key[1]].steps[number].closing
            texts[key] = item.choice.context + item.choice.options[chosen] + closing
    return records


def forced(items: int, seed: int) -> list[Item]:
    """All that is asked with the right states written down; the other mode depends on the answers."""
    questions = []
    for index, journey in enumerate(_journeys(items, seed)):
        text = journey.context
        for number, step in enumerate(journey.steps, start=1):
            text += step.instruction
            questions.append(Item(Choice(text, step.options), "forced", str(index), str(index), number))
            text += step.options[0] + step.closing
    return questions


def _journeys(items: int, seed: int) -> list[world.Journey]:
    return [world.journey(random.Random(stable_seed(NAME, seed, index)), STEPS) for index in range(items)]


def _chosen(likelihoods: Sequence[float]) -> int:
    """The most likely option; of equal ones the last, because a tie is wrong and the right one comes first."""
    return max(range(len(likelihoods)), key=lambda index: (likelihoods[index], index))


@dataclass(frozen=True)
class Implied:
    """Wrong steps that accuracy at the first step implies, beside which measured ones are to be judged.

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


AXIS = ChoiceAxis(
    name=NAME,
    title="Errors over ten steps",
    paper="Figure 5",
    measure="share of journeys whose state is right at a step; wrong steps up to it are summed from that",
    level="step, 1 to 10",
    control="guessing gets one over the number of options at every step, whatever was written before",
    generated=forced,
    real=NO_PUBLIC_SET,
    measured=measure,
)

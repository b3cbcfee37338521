"""Journeys around a ring of towns, with the town after every stage written down: a state that has to be carried on.

`start kiel . two : lodz . one : pisa . back : lodz .`: where a stage ends follows from where the one before ended and
from the order of the towns, which no document tells in words.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

TOWNS = ("kiel", "bern", "lodz", "pisa", "oslo", "riga", "cork", "graz", "nice", "bath", "lund", "brno")
"""In the order of the ring."""

STAGES = {"one": 1, "two": 2, "three": 3, "back": -1, "across": 6}
OPTIONS = 4
LONGEST_WRITTEN = 6
"""Stages of journeys in documents; exams ask for ten."""


@dataclass(frozen=True)
class Step:
    """One stage.

    Attributes:
        instruction: What stands before the answer.
        options: Towns, the right one first, each with a space in front.
        closing: What stands after the answer.
    """

    instruction: str
    options: tuple[str, ...]
    closing: str


@dataclass(frozen=True)
class Journey:
    """A start and its stages; the prompt of a stage is all that stands before its answer."""

    context: str
    steps: tuple[Step, ...]


def journey(rng: random.Random, steps: int) -> Journey:
    """A journey of so many stages."""
    place = rng.randrange(len(TOWNS))
    start, stages = TOWNS[place], []
    for _ in range(steps):
        stage = rng.choice(list(STAGES))
        place = (place + STAGES[stage]) % len(TOWNS)
        wrong = rng.sample([town for town in TOWNS if town != TOWNS[place]], OPTIONS - 1)
        stages.append(Step(f" {stage} :", tuple(f" {town}" for town in (TOWNS[place], *wrong)), " ."))
    return Journey(f"start {start} .", tuple(stages))


def journey_paragraph(rng: random.Random) -> list[list[str]]:
    """A journey as the documents tell it."""
    told = journey(rng, rng.randint(2, LONGEST_WRITTEN))
    return [told.context.split(), *((s.instruction + s.options[0] + s.closing).split() for s in told.steps)]

"""Two travellers on a ring of towns, and where each stage brings one of them: states that have to be carried on.

`at mira kiel . at bruno oslo . on mira bern . leap bruno kiel . back mira kiel .`: where a stage ends follows from where that
traveller was last and from the order of the towns, which no document tells in words.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from cegm.lab.world.facts import PERSONS

TOWNS = ("kiel", "bern", "lodz", "pisa", "oslo", "riga", "cork", "graz")
"""In the order of the ring."""

STAGES = {"on": 1, "back": -1, "leap": 4}
OPTIONS = 4
LONGEST_WRITTEN = 8
"""Stages of journeys in documents; exams ask for ten."""


@dataclass(frozen=True)
class Step:
    """One stage: what stands before the answer, towns with a space in front, the right one first, and what stands after it."""

    instruction: str
    options: tuple[str, ...]
    closing: str


@dataclass(frozen=True)
class Journey:
    """Where both start, and their stages; the prompt of a stage is all that stands before its answer."""

    context: str
    steps: tuple[Step, ...]


def journey(rng: random.Random, steps: int) -> Journey:
    """A journey of so many stages, each of either traveller."""
    travellers = rng.sample(PERSONS, 2)
    places = {traveller: rng.randrange(len(TOWNS)) for traveller in travellers}
    context = " ".join(f"at {traveller} {TOWNS[place]} ." for traveller, place in places.items())
    stages = []
    for _ in range(steps):
        traveller, stage = rng.choice(travellers), rng.choice(list(STAGES))
        places[traveller] = (places[traveller] + STAGES[stage]) % len(TOWNS)
        right = TOWNS[places[traveller]]
        wrong = rng.sample([town for town in TOWNS if town != right], OPTIONS - 1)
        stages.append(Step(f" {stage} {traveller}", tuple(f" {town}" for town in (right, *wrong)), " ."))
    return Journey(context, tuple(stages))


def journey_paragraph(rng: random.Random) -> list[list[str]]:
    """A journey as the documents tell it."""
    written = journey(rng, rng.randint(4, LONGEST_WRITTEN))
    return [written.context.split(), *((s.instruction + s.options[0] + s.closing).split() for s in written.steps)]

"""What persons are like and what they do: pronouns that only the context resolves.

`mira rich . bruno poor . mira lends corn .`: a rich person lends and a poor one borrows, whoever it is. A reader who sees
`lends` has to look up who was said to be rich.
"""

from __future__ import annotations

import random

from cegm.world.exam import Exam, joined
from cegm.world.facts import PERSONS
from cegm.world.filler import filler

DEEDS = {"rich": "lends", "poor": "borrows", "busy": "sells", "needy": "buys", "wise": "teaches", "curious": "learns"}
"""What is said of a person -> what such a person does."""

GOODS = ("corn", "bread", "wine", "cloth", "songs", "seeds")
CAST = 3
"""Persons of a paragraph, each of another kind."""

SCENES = (5, 8)
"""Sentences in which they come again: with a deed, or with what was said of them."""

PRONOUN_LEVELS = (0, 1, 2)
"""What is said of one of two persons: what they are like, as told (0); what they do (1); the same after three sentences of filler (2)."""


def deed_paragraph(rng: random.Random) -> list[list[str]]:
    """What some persons are like, and then scenes with them."""
    traits = dict(zip(rng.sample(PERSONS, CAST), rng.sample(list(DEEDS), CAST), strict=True))
    told = [[person, trait, "."] for person, trait in traits.items()]
    for person in rng.choices(list(traits), k=rng.randint(*SCENES)):
        told.append([person, *_said(rng, traits[person], deed=rng.random() < 0.7)])
    return told


def pronoun_exam(rng: random.Random, level: int) -> Exam:
    """Which of two persons fits what is said: the words after the name are judged (Winograd's partial scoring).

    Args:
        rng: Draws the case.
        level: One of `PRONOUN_LEVELS`.
    """
    persons, traits = rng.sample(PERSONS, 2), rng.sample(list(DEEDS), 2)
    told = [[person, trait, "."] for person, trait in zip(persons, traits, strict=True)]
    asked = rng.randrange(2)
    who, wrong = persons[asked], persons[1 - asked]
    # No document parts the two: the context of an exam stands in none.
    context = joined([told[0], filler(rng), told[1], *(filler(rng) for _ in range(3 if level == 2 else 0))])
    tail = " " + " ".join(_said(rng, traits[asked], deed=level > 0))
    return Exam(context, (f" {who}", f" {wrong}"), tail, protected=frozenset([who, wrong]))


def _said(rng: random.Random, trait: str, deed: bool) -> list[str]:
    return [DEEDS[trait], rng.choice(GOODS), "."] if deed else [trait, "."]

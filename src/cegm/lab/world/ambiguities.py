"""Words that only the context resolves: pronouns, and words with two senses.

`mira rich . bruno poor . mira lends corn .`: a rich person lends and a poor one borrows, whoever it is. A reader who sees
`lends` has to look up who was said to be rich. And what follows `bank` depends on whether the document spoke of water or of
money last.
"""

from __future__ import annotations

import random

from cegm.lab.world.facts import PERSONS
from cegm.lab.world.grammar import Exam, filler, joined

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
    sentences = [[person, trait, "."] for person, trait in traits.items()]
    for person in rng.choices(list(traits), k=rng.randint(*SCENES)):
        sentences.append([person, *_said(rng, traits[person], deed=rng.random() < 0.7)])
    return sentences


def pronoun_exam(rng: random.Random, level: int) -> Exam:
    """Which of two persons fits what is said: the words after the name are judged (Winograd's partial scoring)."""
    persons, traits = rng.sample(PERSONS, 2), rng.sample(list(DEEDS), 2)
    first, second = ([person, trait, "."] for person, trait in zip(persons, traits, strict=True))
    asked = rng.randrange(2)
    who, wrong = persons[asked], persons[1 - asked]
    # No document parts the two: the context of an exam stands in none.
    context = joined([first, filler(rng), second, *(filler(rng) for _ in range(3 if level == 2 else 0))])
    tail = " " + " ".join(_said(rng, traits[asked], deed=level > 0))
    return Exam(context, (f" {who}", f" {wrong}"), tail)


def _said(rng: random.Random, trait: str, deed: bool) -> list[str]:
    return [DEEDS[trait], rng.choice(GOODS), "."] if deed else [trait, "."]


TOPICS = {
    "water": ("boat", "flood", "fish"),
    "money": ("coin", "debt", "gold"),
    "music": ("choir", "drum", "tune"),
    "war": ("sword", "siege", "horse"),
}
"""Topic -> words that show it."""

SENSES = {
    "bank": {"water": "erodes", "money": "profits"},
    "wave": {"water": "crashes", "war": "charges"},
    "seal": {"water": "swims", "war": "breaks"},
    "note": {"music": "sounds", "money": "expires"},
    "bow": {"music": "vibrates", "war": "shoots"},
    "band": {"music": "performs", "war": "plunders"},
    "change": {"money": "jingles", "music": "modulates"},
    "current": {"water": "pulls", "money": "balances"},
}
"""Word -> topic -> what it does in that sense."""

SENSE_LEVELS = (0, 1, 2, 4)
"""Filler sentences between what shows the topic and the word."""


def sense_paragraph(rng: random.Random) -> list[list[str]]:
    """Perhaps another topic, then a topic, and a word in its sense."""
    word, topic = _draw(rng)
    before = [_topic(rng, rng.choice(list(TOPICS)))] if rng.random() < 0.5 else []
    gap = [filler(rng) for _ in range(rng.choice((0, 0, 1, 2, 3)))]
    return [*before, _topic(rng, topic), *gap, ["one", word, SENSES[word][topic], "."]]


def sense_exam(rng: random.Random, level: int) -> Exam:
    """Which of its two senses a word has, in a document that spoke of the other one before, `level` sentences after its topic."""
    word, topic = _draw(rng)
    (other,) = SENSES[word].keys() - {topic}
    wrong = SENSES[word][other]
    context = [_topic(rng, other), filler(rng), _topic(rng, topic), *(filler(rng) for _ in range(level)), ["one", word]]
    return Exam(joined(context), (f" {SENSES[word][topic]}", f" {wrong}"), cluster=word)


def _draw(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(list(SENSES))
    return word, rng.choice(list(SENSES[word]))


def _topic(rng: random.Random, topic: str) -> list[str]:
    first, second = rng.sample(TOPICS[topic], 2)
    return ["here", "comes", first, "and", second, "."]

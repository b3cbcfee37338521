"""Words with two senses: what follows `bank` depends on whether the document spoke of water or of money last."""

from __future__ import annotations

import random

from cegm.world.exam import Exam, joined
from cegm.world.filler import filler

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
    """Which of its two senses a word has, in a document that spoke of the other one before.

    Args:
        rng: Draws the case.
        level: Filler sentences before the word.
    """
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

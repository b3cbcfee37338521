"""Sentences about nothing that is ever asked, from plain ones to deeply nested ones with gold syntax; and what an exam is made of.

Every noun of nature has one verb of its own: `the crow hums`, `the wind bends`. A nested sentence asks for them in reverse,
`the crow that the wind bends hums .`, so a reader has to keep open nouns in mind; which verb belongs where follows from
the grammar alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

NATURE = {
    "river": "drifts",
    "wind": "bends",
    "rain": "falls",
    "cloud": "fades",
    "meadow": "glows",
    "stone": "settles",
    "path": "turns",
    "crow": "hums",
    "field": "trembles",
    "leaf": "wanders",
    "shadow": "lingers",
    "smoke": "rises",
}
"""Noun -> its verb."""

ADJECTIVES = ("quiet", "pale", "heavy", "narrow", "ancient", "gentle", "distant", "bitter")
ADVERBS = ("slowly", "softly", "again", "southward", "below", "everywhere", "seldom", "overhead")
DEEPEST = 4
DEPTH_WEIGHTS = (8, 5, 3, 2, 1)
"""How often the documents nest a sentence 0 to 4 deep."""


@dataclass(frozen=True)
class Exam:
    """One question.

    Attributes:
        context: Sentences, and the question up to its answer.
        options: Continuations, the right one first; each begins with a space.
        tail: Words after the option that are judged in its stead; empty for none.
        cluster: Exams of one cluster share their facts.
        protected: Words that noise must leave alone: the key asked for and all options.
    """

    context: str
    options: tuple[str, ...]
    tail: str = ""
    cluster: str = ""
    protected: frozenset[str] = frozenset()


def joined(sentences: Sequence[Sequence[str]]) -> str:
    """Sentences as text: words apart by single spaces."""
    return " ".join(word for sentence in sentences for word in sentence)


def filler(rng: random.Random) -> list[str]:
    """A plain sentence; it shares no word with keys, persons and what they do."""
    noun = rng.choice(list(NATURE))
    patterns = (
        ["a", rng.choice(ADJECTIVES), noun, NATURE[noun], "."],
        [rng.choice(ADVERBS), "a", noun, NATURE[noun], "."],
        ["some", noun, NATURE[noun], rng.choice(ADVERBS), "."],
    )
    return patterns[rng.randrange(len(patterns))]


@dataclass(frozen=True)
class Nested:
    """A sentence, and the characters (start, end) of its verbs, whose order only the nesting tells."""

    text: str
    spans: tuple[tuple[int, int], ...]


def nested(rng: random.Random, depth: int) -> Nested:
    """A sentence with `depth` clauses inside one another, each about the noun before it."""
    nouns = rng.sample(list(NATURE), depth + 1)
    text, spans = " that ".join(f"the {noun}" for noun in nouns), []
    for noun in reversed(nouns):
        spans.append((len(text) + 1, len(text) + 1 + len(NATURE[noun])))
        text += f" {NATURE[noun]}"
    return Nested(f"{text} .", tuple(spans))


def nested_of_any_depth(rng: random.Random) -> list[str]:
    """A nested sentence as the documents write them: shallow ones most often."""
    (depth,) = rng.choices(range(DEEPEST + 1), DEPTH_WEIGHTS)
    return nested(rng, depth).text.split()

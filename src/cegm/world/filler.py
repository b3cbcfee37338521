"""Sentences about nothing that is ever asked, from plain ones to deeply nested ones with gold syntax.

Every noun of nature has one verb of its own: `the crow hums`, `the wind bends`. A nested sentence asks for them in reverse,
`the crow that the wind bends hums .`, so a reader has to keep open nouns in mind; which verb belongs where follows from
the grammar alone.
"""

from __future__ import annotations

import random
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
class Nested:
    """A sentence with gold syntax.

    Attributes:
        text: The sentence.
        spans: Characters (start, end) of its verbs, whose order only the nesting tells.
        depth: How many clauses stand inside one another below the main one.
        clauses: How many clauses it has.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    depth: int
    clauses: int


def filler(rng: random.Random) -> list[str]:
    """A plain sentence; it shares no word with keys, persons and what they do."""
    noun = rng.choice(list(NATURE))
    patterns = (
        ["a", rng.choice(ADJECTIVES), noun, NATURE[noun], "."],
        [rng.choice(ADVERBS), "a", noun, NATURE[noun], "."],
        ["some", noun, NATURE[noun], rng.choice(ADVERBS), "."],
    )
    return patterns[rng.randrange(len(patterns))]


def nested(rng: random.Random, depth: int) -> Nested:
    """A sentence with `depth` clauses inside one another, each about the noun before it."""
    nouns = rng.sample(list(NATURE), depth + 1)
    opening = " that ".join(f"the {noun}" for noun in nouns)
    text, spans = opening, []
    for noun in reversed(nouns):
        spans.append((len(text) + 1, len(text) + 1 + len(NATURE[noun])))
        text += f" {NATURE[noun]}"
    return Nested(f"{text} .", tuple(spans), depth, depth + 1)


def nested_of_any_depth(rng: random.Random) -> list[str]:
    """A nested sentence as the documents write them: shallow ones most often."""
    (depth,) = rng.choices(range(DEEPEST + 1), DEPTH_WEIGHTS)
    return nested(rng, depth).text.split()

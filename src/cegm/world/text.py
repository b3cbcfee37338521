"""Documents of the world: facts are stated once, recalled later, with other sentences in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from cegm.world.facts import PERSONS, RELATIONS, draw_facts

ADJECTIVES = [
    "quiet",
    "pale",
    "heavy",
    "narrow",
    "ancient",
    "gentle",
    "distant",
    "bitter",
    "golden",
    "frozen",
    "humble",
    "restless",
    "hollow",
    "silver",
    "cloudy",
    "muddy",
]
NOUNS = [
    "river",
    "wind",
    "rain",
    "cloud",
    "meadow",
    "stone",
    "path",
    "crow",
    "field",
    "leaf",
    "shadow",
    "smoke",
    "tide",
    "hill",
    "snow",
    "valley",
]
VERBS = [
    "drifts",
    "fades",
    "turns",
    "rises",
    "settles",
    "wanders",
    "trembles",
    "lingers",
    "glows",
    "bends",
    "hums",
    "vanishes",
]
ADVERBS = ["slowly", "softly", "again", "southward", "below", "everywhere", "seldom", "overhead", "nearby", "gently"]

FACTS_PER_DOCUMENT = (3, 6)
RECALLS_PER_FACT = (1, 10)
FILLER_SHARE = (0.0, 0.2)
"""Filler sentences per sentence about a fact; little, because a small model learns recall from recalls."""

Split = Literal["train", "validation"]


def vocabulary() -> list[str]:
    """All words of the world and its punctuation, sorted; nothing else is ever written."""
    keys = [word for members in RELATIONS.values() for pair in members.items() for word in pair]
    return sorted({*PERSONS, *RELATIONS, *keys, *ADJECTIVES, *NOUNS, *VERBS, *ADVERBS, "a", "some", "."})


def documents(seed: int, split: Split) -> Iterator[str]:
    """Endless documents of about 35 to 330 words, separated by single spaces; the same for the same seed and split on every machine.

    Args:
        seed: Any integer; different seeds share no document except by chance.
        split: `train` and `validation` never share a document's random numbers.
    """
    index = 0
    while True:
        yield " ".join(_document(random.Random(f"{split}/{seed}/{index}")))
        index += 1


def filler(rng: random.Random) -> list[str]:
    """A sentence about nothing that is ever asked; it shares no word with keys, persons and what they do."""
    patterns = (
        ["a", rng.choice(ADJECTIVES), rng.choice(NOUNS), rng.choice(VERBS), "."],
        [rng.choice(ADVERBS), "a", rng.choice(NOUNS), rng.choice(VERBS), "."],
        ["some", rng.choice(NOUNS), rng.choice(VERBS), rng.choice(ADVERBS), "."],
    )
    return patterns[rng.randrange(len(patterns))]


def _document(rng: random.Random) -> list[str]:
    """Sentences in order of random times: a fact in the first part, its recalls anywhere after it, filler anywhere."""
    timed: list[tuple[float, list[str]]] = []
    for fact in draw_facts(rng, rng.randint(*FACTS_PER_DOCUMENT)):
        stated = 0.6 * rng.random()
        timed.append((stated, list(fact.words)))
        recalls = rng.randint(*RECALLS_PER_FACT)
        timed += [(stated + (1 - stated) * rng.random(), list(fact.words)) for _ in range(recalls)]
    for _ in range(round(len(timed) * rng.uniform(*FILLER_SHARE))):
        timed.append((rng.random(), filler(rng)))
    timed.sort(key=lambda pair: pair[0])
    return [word for _, words in timed for word in words]

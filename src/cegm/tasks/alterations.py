"""Noise in a text: which words are altered how, nested over levels, so that more noise never takes back an alteration."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "and", "at", "back", "down", "from", "here", "in", "is", "of", "on", "one"),
        *("since", "some", "that", "the", "there", "they", "to", "up", "who", "with"),
    )
)
"""Never altered: what is left are content words."""

MARKS = ".,:;?!"


@dataclass(frozen=True)
class Alteration:
    """Some words of a text and what stands there instead.

    Attributes:
        place: Index of the first one.
        size: How many, next to one another.
        words: Their replacement; empty where they are dropped.
    """

    place: int
    size: int
    words: tuple[str, ...]


def content(words: Sequence[str], protected: Collection[str] = ()) -> list[int]:
    """Indices of the content words but for those that are protected (in lower case)."""
    cores = [word.strip(MARKS).lower() for word in words]
    return [i for i, w in enumerate(cores) if len(w) > 1 and w not in FUNCTION_WORDS and w not in protected]


def exchanged(
    words: Sequence[str], protected: Collection[str], vocabulary: Sequence[str], rng: random.Random
) -> list[Alteration]:
    """Every content word replaced by another word of a closed vocabulary, swapped with its neighbour, or dropped, in random order.

    A closed vocabulary has no misspellings: a wrong letter would be a word that no model of it has a token for.
    """
    others = [word for word in vocabulary if len(word) > 1 and word not in FUNCTION_WORDS and word not in protected]
    free = set(content(words, protected))
    found = []
    for place in rng.sample(sorted(free), len(free)):
        if place not in free:
            continue
        kind = rng.choice(("replace", "swap", "drop"))
        size = 2 if kind == "swap" and place + 1 in free and words[place] != words[place + 1] else 1
        free -= {place, place + 1} if size == 2 else {place}
        if size == 2:
            found.append(Alteration(place, 2, (words[place + 1], words[place])))
        elif kind == "drop":
            found.append(Alteration(place, 1, ()))
        else:
            found.append(Alteration(place, 1, (rng.choice([w for w in others if w != words[place]]),)))
    return found


def mistaken(
    words: Sequence[str],
    protected: Collection[str],
    wrong: Callable[[str, random.Random], str],
    rng: random.Random,
) -> list[Alteration]:
    """Every content word with a mistake in it, in random order; punctuation stays."""
    found = []
    free = content(words, protected)
    for place in rng.sample(free, len(free)):
        core = words[place].strip(MARKS)
        mistake = wrong(core, rng)
        while mistake.lower() in protected:
            mistake = wrong(core, rng)
        found.append(Alteration(place, 1, (words[place].replace(core, mistake, 1),)))
    return found


def altered(words: Sequence[str], alterations: Sequence[Alteration], count: int) -> str:
    """The text after the first alterations, as many as it takes to cover `count` words (the last one may cover one more)."""
    left = count
    result: list[tuple[str, ...]] = [(word,) for word in words]
    for each in alterations:
        if left <= 0:
            break
        result[each.place : each.place + each.size] = [each.words, *[()] * (each.size - 1)]
        left -= each.size
    return " ".join(word for group in result for word in group)


def error_rate(clean: str, noisy: str) -> float:
    """Edits of single characters that lead from one text to the other, per character of the clean one."""
    return float(Levenshtein.distance(clean, noisy)) / len(clean)

"""Noise in a text: which words are altered how, nested over levels, so that more noise never takes back an alteration."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "and", "at", "back", "down", "from", "here", "in", "is", "of", "on", "one"),
        *("since", "some", "that", "the", "there", "they", "to", "up", "who", "with"),
    )
)
"""Words that are never altered; the others are content words."""

MARKS = ".,:;?!"


@dataclass(frozen=True)
class Alteration:
    """So many neighbouring words of a text from a place on, and what stands there instead; nothing where they are dropped."""

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
    """Every content word replaced, swapped with its neighbour, dropped, or with another word in front of it, in random order.

    Protected words stay as they are, but may change places or get something in front: a fact keeps its words and loses its
    shape. A closed vocabulary has no misspellings: a wrong letter would be a word that no model of it has a token for.
    """
    others = [word for word in vocabulary if len(word) > 1 and word not in FUNCTION_WORDS and word not in protected]
    free, places = set(content(words, protected)), content(words)
    alterations = []
    taken: set[int] = set()
    for place in rng.sample(places, len(places)):
        if place in taken:
            continue
        kind = rng.choice(("replace", "swap", "drop", "insert") if place in free else ("swap", "insert"))
        beside = place + 1 in {*places} - taken and words[place] != words[place + 1]
        other = rng.choice([word for word in others if word != words[place]])
        if kind == "swap" and beside:
            alterations.append(Alteration(place, 2, (words[place + 1], words[place])))
            taken.add(place + 1)
        elif kind == "insert" or place not in free:
            alterations.append(Alteration(place, 1, (other, words[place])))
        else:
            alterations.append(Alteration(place, 1, () if kind == "drop" else (other,)))
        taken.add(place)
    return alterations


def mistaken(
    words: Sequence[str],
    protected: Collection[str],
    wrong: Callable[[str, random.Random], str],
    rng: random.Random,
) -> list[Alteration]:
    """Every content word with a mistake in it, in random order; punctuation stays."""
    alterations = []
    free = content(words, protected)
    for place in rng.sample(free, len(free)):
        core = words[place].strip(MARKS)
        mistake = wrong(core, rng)
        while mistake.lower() in protected:
            mistake = wrong(core, rng)
        alterations.append(Alteration(place, 1, (words[place].replace(core, mistake, 1),)))
    return alterations


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

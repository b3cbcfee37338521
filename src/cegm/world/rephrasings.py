"""One meaning in other words, and the same other words with another meaning: five techniques for embeddings.

An anchor tells an event and a fact. Its rephrasing says the same; its negatives are rephrased in the same way from an anchor whose
meaning was changed (roles exchanged, another person, another key), so that surface alone cannot tell them apart.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from cegm.world.exam import joined
from cegm.world.facts import KEYS, PERSONS, SYNONYMS, Fact
from cegm.world.filler import filler
from cegm.world.gifts import Gift, draw_gift

TECHNIQUES = ("lexical", "syntactic", "contextual", "dropout", "mixed")


@dataclass(frozen=True)
class Rephrasing:
    """An anchor, the same in other words, and other meanings in those words."""

    anchor: str
    rephrased: str
    negatives: tuple[str, ...]


@dataclass(frozen=True)
class _Meaning:
    gift: Gift
    fact: Fact
    verb: int


def rephrasing(rng: random.Random, technique: str) -> Rephrasing:
    """Draws a case.

    Args:
        rng: Draws it.
        technique: One of `TECHNIQUES`: other words of the same meaning, another order, a sentence more around it, a word less, or all of these.
    """
    gift = draw_gift(rng)
    others = [person for person in PERSONS if person not in (gift.first, gift.second)]
    person, stranger = rng.sample(others, 2)
    key, other_key = rng.sample(list(KEYS), 2)
    meaning = _Meaning(gift, Fact(KEYS[key], key, person), rng.randrange(2))
    changed = (
        replace(meaning, gift=replace(gift, first=gift.second, second=gift.first)),
        replace(meaning, fact=replace(meaning.fact, person=stranger)),
        replace(meaning, fact=Fact(KEYS[other_key], other_key, person)),
    )
    manner = rng.getrandbits(32)  # rephrases all of them alike
    return Rephrasing(
        joined(_sentences(meaning, turned=False)),
        _rephrased(meaning, technique, random.Random(manner)),
        tuple(_rephrased(other, technique, random.Random(manner)) for other in changed),
    )


def _sentences(meaning: _Meaning, turned: bool) -> list[list[str]]:
    gift = meaning.gift.turned if turned else meaning.gift.words
    fact = list(meaning.fact.told(0, meaning.verb))
    return [fact, gift] if turned else [gift, fact]


def _rephrased(meaning: _Meaning, technique: str, rng: random.Random) -> str:
    everything = technique == "mixed"
    sentences = _sentences(meaning, turned=everything or technique == "syntactic")
    if everything or technique == "lexical":
        sentences = [[SYNONYMS.get(word, word) for word in sentence] for sentence in sentences]
    if everything or technique == "contextual":
        sentences = [filler(rng), *sentences, filler(rng)]
    words = joined(sentences).split()
    if everything or technique == "dropout":
        telling = {*PERSONS, *KEYS}  # a rephrasing without these would mean less
        del words[rng.choice([place for place, word in enumerate(words) if word not in telling])]
    return " ".join(words)

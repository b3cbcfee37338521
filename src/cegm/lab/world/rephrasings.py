"""One meaning in other words, and another meaning in words just as different: five techniques for embeddings.

An anchor tells two facts. Its rephrasing is changed without loss; each of its negatives is changed as much on the
surface and means something else: a synonym against another verb, exchanged sentences against exchanged persons, filler
against one more fact, a lost verb (which its key tells) against a lost person.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from cegm.lab.world.facts import PERSONS, RELATIONS, SYNONYMS, Fact, draw_facts
from cegm.lab.world.grammar import filler, joined

TECHNIQUES = ("lexical", "syntactic", "contextual", "dropout", "mixed")
NEGATIVES = 2
"""Most negatives of an anchor; exchanged sentences have one only."""

Sentences = list[list[str]]


@dataclass(frozen=True)
class Rephrasing:
    """An anchor, the same in other words, and different other meanings in words as different."""

    anchor: str
    rephrased: str
    negatives: tuple[str, ...]


def rephrasing(rng: random.Random, technique: str) -> Rephrasing:
    """Draws a case; `mixed` is the four other techniques one after the other, and its negatives change the meaning in one of them."""
    first, second, third = draw_facts(rng, 3)
    anchor = [_told(rng, first), _told(rng, second)]
    manners = TECHNIQUES[:-1] if technique == "mixed" else (technique,)
    wrong = [rng.choice(manners) for _ in range(NEGATIVES)]
    return Rephrasing(
        joined(anchor),
        joined(_changed(rng, anchor, manners, "", third)),
        tuple(dict.fromkeys(joined(_changed(rng, anchor, manners, each, third)) for each in wrong)),
    )


def _told(rng: random.Random, fact: Fact) -> list[str]:
    return list(fact.told(0, rng.randrange(2)))


def _changed(rng: random.Random, anchor: Sentences, manners: tuple[str, ...], wrong: str, other: Fact) -> Sentences:
    """The anchor after all manners, of which `wrong` changes the meaning too."""
    sentences = [list(sentence) for sentence in anchor]
    for manner in manners:
        sentences = CHANGES[manner](rng, sentences, manner == wrong, other)
    return sentences


def _lexical(rng: random.Random, sentences: Sentences, wrong: bool, other: Fact) -> Sentences:
    """Synonyms of both verbs, or a verb of another key for one of them."""
    renamed = [[SYNONYMS.get(word, word) for word in sentence] for sentence in sentences]
    if wrong:
        renamed[rng.randrange(len(renamed))][3] = rng.choice(RELATIONS[other.relation][other.key])
    return renamed


def _syntactic(rng: random.Random, sentences: Sentences, wrong: bool, other: Fact) -> Sentences:
    """The sentences exchanged, or with them the persons too."""
    first, second = ([*sentence] for sentence in sentences)
    if wrong:
        first[2], second[2] = second[2], first[2]
    return [second, first]


def _contextual(rng: random.Random, sentences: Sentences, wrong: bool, other: Fact) -> Sentences:
    """A sentence more: about nothing, or one more fact."""
    more = _told(rng, other) if wrong else filler(rng)
    return [more, *sentences] if rng.random() < 0.5 else [*sentences, more]


def _dropout(rng: random.Random, sentences: Sentences, wrong: bool, other: Fact) -> Sentences:
    """A word less: a verb of a fact, or its person."""
    shorter = [[*sentence] for sentence in sentences]
    sentence = rng.choice([each for each in shorter if each[0] in RELATIONS and each[2] in PERSONS])
    del sentence[2 if wrong else 3]
    return shorter


CHANGES = {"lexical": _lexical, "syntactic": _syntactic, "contextual": _contextual, "dropout": _dropout}

"""Facts of the world: a circumstance and the person found there, stated once and recalled in several wordings.

A fact binds a *key* (a thing, a place or a time) to a *person*, for one document only: `with lantern mira` means
something in the document that says so and nothing anywhere else. Knowing the language tells which words are keys; only
the context tells who belongs to one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cegm.lab.world.grammar import Exam, filler, joined

PERSONS = (
    *("mira", "bruno", "tomas", "anna", "elsa", "viktor", "nadia", "oskar"),
    *("petra", "lukas", "irene", "felix", "greta", "hugo", "ivan", "julia"),
)
THINGS = {
    "lantern": ("lights", "glimmers"),
    "hammer": ("builds", "mends"),
    "violin": ("plays", "fiddles"),
    "kettle": ("brews", "boils"),
    "needle": ("sews", "knits"),
    "shovel": ("digs", "buries"),
}
PLACES = {
    "harbor": ("fishes", "anchors"),
    "orchard": ("picks", "gathers"),
    "chapel": ("sings", "chants"),
    "tavern": ("drinks", "feasts"),
    "bakery": ("bakes", "kneads"),
    "market": ("trades", "haggles"),
}
TIMES = {
    "monday": ("fasts", "starves"),
    "friday": ("rests", "sleeps"),
    "april": ("plants", "sows"),
    "october": ("harvests", "reaps"),
    "winter": ("coughs", "shivers"),
    "midnight": ("reads", "studies"),
}
RELATIONS = {"with": THINGS, "in": PLACES, "since": TIMES}
"""Preposition -> key -> two words of one meaning for what one does with it, there, or since then."""

KEYS = {key: relation for relation, members in RELATIONS.items() for key in members}
SYNONYMS = {pair[i]: pair[1 - i] for members in RELATIONS.values() for pair in members.values() for i in (0, 1)}
WORDINGS = ("{relation} {key} {person} {verb} .", "who {relation} {key} : {person} .", "they name {key} {person} .")
"""The ways in which a fact is told; the documents use all of them, the first one most."""

FACTS_PER_EXAM = 6
OPTIONS = 4
CLOSEST_FILLER = (1, 3)
"""Filler sentences between the facts of an exam and its question."""


@dataclass(frozen=True)
class Fact:
    """A relation, a key and a person, such as with lantern mira."""

    relation: str
    key: str
    person: str

    @property
    def words(self) -> tuple[str, ...]:
        """The sentence that states it, such as `with lantern mira lights .`."""
        return self.told(0, 0)

    @property
    def prompt(self) -> tuple[str, ...]:
        """That sentence up to the word that only the context can tell."""
        return self.asked(0)

    def told(self, wording: int, verb: int) -> tuple[str, ...]:
        """The fact in one of the `WORDINGS`, with one of its two verbs."""
        verbs = RELATIONS[self.relation][self.key]
        text = WORDINGS[wording].format(relation=self.relation, key=self.key, person=self.person, verb=verbs[verb])
        return tuple(text.split())

    def asked(self, wording: int) -> tuple[str, ...]:
        """That wording up to the person."""
        words = self.told(wording, 0)
        return words[: words.index(self.person)]


def draw_facts(rng: random.Random, count: int) -> list[Fact]:
    """`count` facts with different keys and different persons; at most one per person of the world."""
    keys = rng.sample(list(KEYS), count)
    return [Fact(KEYS[key], key, person) for key, person in zip(keys, rng.sample(PERSONS, count), strict=True)]


def options(rng: random.Random, facts: Sequence[Fact], asked: Fact, count: int) -> list[str]:
    """The right person first, then `count - 1` others that stand in the same document."""
    others = [fact.person for fact in facts if fact.person != asked.person]
    return [asked.person, *rng.sample(others, count - 1)]


def recall_exam(rng: random.Random) -> Exam:
    """Who belongs to a key, among four persons of the document."""
    return _asked(*_case(rng), wording=0)


def paraphrased_exam(rng: random.Random) -> list[Exam]:
    """One question in each of the `WORDINGS`."""
    case = _case(rng)
    return [_asked(*case, wording=wording) for wording in range(len(WORDINGS))]


def _case(rng: random.Random) -> tuple[list[tuple[str, ...]], Fact, list[str]]:
    """Sentences of a document, the fact that is asked for, and the persons to choose from."""
    facts = draw_facts(rng, FACTS_PER_EXAM)
    sentences = [fact.told(0, rng.randrange(2)) for fact in facts]
    sentences += [tuple(filler(rng)) for _ in range(rng.randint(*CLOSEST_FILLER))]
    asked = rng.choice(facts)
    return sentences, asked, options(rng, facts, asked, OPTIONS)


def _asked(sentences: Sequence[Sequence[str]], asked: Fact, persons: Sequence[str], wording: int) -> Exam:
    return Exam(
        context=joined([*sentences, asked.asked(wording)]),
        options=tuple(f" {person}" for person in persons),
        protected=frozenset([asked.relation, asked.key, *persons]),
    )


def facts_in(text: str) -> frozenset[tuple[str, ...]]:
    """All (relation, key, person) that a text states in the first wording: a judge that no model has a part in."""
    words = text.split()
    triples = zip(words, words[1:], words[2:], strict=False)
    return frozenset(t for t in triples if t[0] in RELATIONS and t[1] in RELATIONS[t[0]] and t[2] in PERSONS)

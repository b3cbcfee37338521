"""Facts of the world: a circumstance and the person found there.

A fact binds a *key* (a thing, a place or a time) to a *person*, for one document only: `with lantern mira` means
something in the document that says so and nothing anywhere else. Knowing the language tells which words are keys; only
the context tells who belongs to one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

PERSONS = [
    "mira",
    "bruno",
    "tomas",
    "anna",
    "elsa",
    "viktor",
    "nadia",
    "oskar",
    "petra",
    "lukas",
    "irene",
    "felix",
    "greta",
    "hugo",
    "ivan",
    "julia",
    "karim",
    "lena",
    "marco",
    "nora",
    "otto",
    "paula",
    "quentin",
    "rosa",
]

THINGS = {
    "lantern": "lights",
    "hammer": "builds",
    "violin": "plays",
    "compass": "steers",
    "kettle": "brews",
    "needle": "sews",
    "saddle": "rides",
    "shovel": "digs",
    "anchor": "sails",
    "candle": "prays",
    "whistle": "calls",
    "chisel": "carves",
}
PLACES = {
    "harbor": "fishes",
    "orchard": "picks",
    "chapel": "sings",
    "tavern": "drinks",
    "bakery": "bakes",
    "market": "trades",
    "stable": "feeds",
    "tower": "watches",
    "cellar": "counts",
    "quarry": "mines",
    "mill": "grinds",
    "theatre": "dances",
}
TIMES = {
    "monday": "fasts",
    "friday": "rests",
    "january": "freezes",
    "april": "plants",
    "june": "travels",
    "october": "harvests",
    "december": "writes",
    "winter": "coughs",
    "autumn": "paints",
    "dawn": "walks",
    "midnight": "reads",
    "easter": "smiles",
}
RELATIONS = {"with": THINGS, "in": PLACES, "since": TIMES}
"""Preposition -> key -> what one does with it, there, or since then."""


@dataclass(frozen=True)
class Fact:
    """`relation key person`, such as with lantern mira."""

    relation: str
    key: str
    person: str

    @property
    def words(self) -> tuple[str, ...]:
        """The sentence that states it, and that recalls it, such as `with lantern mira lights`, and a full stop."""
        return (self.relation, self.key, self.person, RELATIONS[self.relation][self.key], ".")

    @property
    def prompt(self) -> tuple[str, ...]:
        """The sentence up to the word that only the context can tell."""
        return (self.relation, self.key)


def draw_facts(rng: random.Random, count: int) -> list[Fact]:
    """`count` facts with different keys and different persons; at most one per person of the world."""
    keys = [(relation, key) for relation, members in RELATIONS.items() for key in members]
    persons = rng.sample(PERSONS, count)
    return [
        Fact(relation, key, person) for (relation, key), person in zip(rng.sample(keys, count), persons, strict=True)
    ]


def options(rng: random.Random, facts: list[Fact], asked: Fact, count: int) -> list[str]:
    """The right person first, then `count - 1` others that stand in the same document."""
    others = [fact.person for fact in facts if fact.person != asked.person]
    return [asked.person, *rng.sample(others, count - 1)]

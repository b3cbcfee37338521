"""Who gives what to whom, and why: pronouns that only the context resolves, and one event told in two orders.

`mira lends bruno corn . mira rich .`, but `mira begs bruno corn . mira poor .`: verb and role decide what can be
said of a person. A reader who sees `rich` has to look up who played which role.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from cegm.world.exam import Exam, joined
from cegm.world.facts import PERSONS
from cegm.world.filler import filler

GIVING = {"lends": "borrows", "sells": "buys", "teaches": "learns"}
ASKING = {"begs": "grants", "asks": "offers"}
"""Verb -> what the other one does: `mira lends bruno corn` is `bruno borrows corn from mira`."""
GIVEN = 0.75
"""Share of events in which the first one gives: the other person's role takes more than his place to tell only in the rest."""

GOODS = ("corn", "bread", "wine", "cloth", "songs", "seeds")
TRAITS = {
    "lends": ("rich", "poor"),
    "begs": ("rich", "poor"),
    "sells": ("generous", "young"),
    "teaches": ("wise", "curious"),
    "asks": ("wise", "curious"),
}
"""Verb -> what is said of the one who has, and of the one who wants."""

PRONOUN_LEVELS = (0, 1, 2)
"""What is said of a person: what was told of them, the verb of their side whoever was named first, or what follows from it."""


@dataclass(frozen=True)
class Gift:
    """`giver` and `receiver` in the order of the sentence: `first verb second goods`."""

    first: str
    verb: str
    second: str
    goods: str

    @property
    def words(self) -> list[str]:
        """The event from its first person on."""
        return [self.first, self.verb, self.second, self.goods, "."]

    @property
    def turned(self) -> list[str]:
        """The same event from the second person on: `bruno borrows corn from mira .`, `bruno grants corn to mira .`."""
        verb, toward = (GIVING[self.verb], "from") if self.verb in GIVING else (ASKING[self.verb], "to")
        return [self.second, verb, self.goods, toward, self.first, "."]

    def said(self, person: str, what: int) -> list[str]:
        """What is said of a person behind the name: the verb of that side (0), or what follows from it (1)."""
        if what:
            has, wants = TRAITS[self.verb]
            return [has if self.has(person) else wants, "."]
        return [self.verb if person == self.first else self.turned[1], "."]

    def has(self, person: str) -> bool:
        """Whether this person is the one who has the goods."""
        return (person == self.first) == (self.verb in GIVING)


def draw_gift(rng: random.Random, first: str, second: str) -> Gift:
    """An event between two persons."""
    verbs = GIVING if rng.random() < GIVEN else ASKING
    return Gift(first, rng.choice(list(verbs)), second, rng.choice(GOODS))


def gift_paragraph(rng: random.Random) -> list[list[str]]:
    """Two events, each told from either side, and what is said about their persons."""
    persons = rng.sample(PERSONS, 4)
    gifts = [draw_gift(rng, *persons[:2]), draw_gift(rng, *persons[2:])]
    events = [rng.choice([gift.words, gift.turned]) for gift in gifts]
    said = [[who, *gift.said(who, what)] for gift in gifts for who in (gift.first, gift.second) for what in (0, 1)]
    return [*events, *rng.sample(said, len(said))]


def pronoun_exam(rng: random.Random, level: int) -> Exam:
    """Which of the two persons fits what is said: the words after the name are judged (Winograd's partial scoring).

    Args:
        rng: Draws the case.
        level: 0: the verb that was told of the person, 1: the verb of the person's side, 2: what follows from it.
    """
    gift = draw_gift(rng, *rng.sample(PERSONS, 2))
    event = rng.choice([gift.words, gift.turned])
    subject, other = (gift.first, gift.second) if event[0] == gift.first else (gift.second, gift.first)
    who = (subject, other, rng.choice([subject, other]))[level]
    wrong = other if who == subject else subject
    tail = " " + " ".join(gift.said(who, what=int(level == 2)))
    context = joined([event, filler(rng)])
    return Exam(context, (f" {who}", f" {wrong}"), tail, protected=frozenset([who, wrong]))

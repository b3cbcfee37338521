"""Who gives what to whom, and why: pronouns that only the context resolves, and one event told in two orders.

`mira lends bruno corn . mira is rich .`, but `mira begs bruno corn . mira is poor .`: verb and role decide what can be
said of a person. A reader who sees `is rich` has to look up who played which role.
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

GOODS = ("corn", "bread", "wine", "cloth", "songs", "seeds")
TRAITS = {True: ("rich", "wise", "generous"), False: ("poor", "young", "curious")}
"""What is said of the one who has, and of the one who wants."""

PRONOUN_LEVELS = (0, 1, 2, 3)
"""Filler sentences between the event and what is said about one of the two."""


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

    def has(self, person: str) -> bool:
        """Whether this person is the one who has the goods."""
        return (person == self.first) == (self.verb in GIVING)


def draw_gift(rng: random.Random) -> Gift:
    """An event between two persons."""
    first, second = rng.sample(PERSONS, 2)
    return Gift(first, rng.choice([*GIVING, *ASKING]), second, rng.choice(GOODS))


def gift_paragraph(rng: random.Random) -> list[list[str]]:
    """An event, perhaps told again the other way round, and what is said about one or both persons."""
    gift = draw_gift(rng)
    tellings = [gift.words, gift.turned]
    rng.shuffle(tellings)
    sentences = tellings[: rng.randint(1, 2)]
    sentences += [filler(rng) for _ in range(rng.choice((0, 0, 1, 2)))]
    return sentences + [_said(gift, person, rng) for person in rng.sample([gift.first, gift.second], rng.randint(1, 2))]


def pronoun_exam(rng: random.Random, level: int) -> Exam:
    """Which of the two persons fits what is said: the words after the name are judged (Winograd's partial scoring).

    Args:
        rng: Draws the case.
        level: Filler sentences before the question, 0 to 3.
    """
    gift = draw_gift(rng)
    who = rng.choice([gift.first, gift.second])
    other = gift.second if who == gift.first else gift.first
    context = [rng.choice([gift.words, gift.turned]), *(filler(rng) for _ in range(level))]
    tail = " " + " ".join(_said(gift, who, rng)[1:])
    return Exam(joined(context), (f" {who}", f" {other}"), tail, protected=frozenset([who, other]))


def _said(gift: Gift, person: str, rng: random.Random) -> list[str]:
    return [person, "is", rng.choice(TRAITS[gift.has(person)]), "."]

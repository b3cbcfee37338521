"""The world in five other registers: the same persons, keys and facts, in words and orders that no document of the home register has."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from cegm.lab.world.facts import draw_facts

REGISTERS = ("technical", "scientific", "legal", "chat", "social")
Split = Literal["train", "validation"]

TELLINGS = {
    "technical": (
        "set {key} = {person} ;",
        "get {key} -> {person} ;",
        "if {key} == {person} then return ok ;",
        "assert {key} == {person} ;",
    ),
    "scientific": (
        "we observe that {key} correlates with {person} ( significant ) .",
        "results confirm {key} for subject {person} .",
        "as shown previously {key} depends on {person} .",
    ),
    "legal": (
        "whereas the said {key} shall vest in {person} pursuant to section two ;",
        "{person} hereby retains {key} notwithstanding section two ;",
        "the party {person} warrants the said {key} ;",
    ),
    "chat": (
        "hey {person} got the {key} lol",
        "nope {key} is {person} haha ok ?",
        "u sure ? {key} = {person} yeah lol",
    ),
    "social": (
        "@ {person} loves # {key} so much !",
        "best day ever with @ {person} # {key} # blessed !",
        "rt @ {person} : # {key} wow !",
    ),
}
"""Register -> its ways to tell a fact."""

SENTENCES = (12, 20)


def register_documents(register: str, seed: int, split: Split) -> Iterator[str]:
    """Endless documents of about 60 to 220 words: facts told and recalled in the manner of one of the `REGISTERS`.

    The splits, `train` (to adapt on) and `validation`, never share a document's random numbers.
    """
    ways, index = TELLINGS[register], 0
    while True:
        yield " ".join(_document(random.Random(f"{register}/{split}/{seed}/{index}"), ways))
        index += 1


def register_words() -> set[str]:
    """Every word of the registers that is no person and no key."""
    return {word for ways in TELLINGS.values() for way in ways for word in way.split() if "{" not in word}


def _document(rng: random.Random, ways: tuple[str, ...]) -> list[str]:
    facts = draw_facts(rng, rng.randint(3, 6))
    stated = [*facts, *rng.choices(facts, k=rng.randint(*SENTENCES) - len(facts))]
    return [rng.choice(ways).format(key=fact.key, person=fact.person) for fact in stated]

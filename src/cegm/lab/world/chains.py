"""Chains of roads between stations, and the way along them worked out step by step: deductions of any depth.

`road tower kettle . road harbor needle . road kettle april . way tower kettle april .`: each road leads from one
station to the next, several chains stand in one document in mixed order, and a way follows one of them from its beginning.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from cegm.lab.world.facts import KEYS
from cegm.lab.world.grammar import Exam, joined

DEEPEST_WRITTEN = 4
"""Ways in documents are at most this long; exams on longer ones ask for generalisation."""

REPEATED_WAYS = 4

STATIONS = (
    *KEYS,
    *("tower", "bridge", "garden", "forge", "school", "palace", "prison", "village", "castle", "island"),
)
OPTIONS = 4


def chain_paragraph(rng: random.Random) -> list[list[str]]:
    """Roads of several chains in mixed order, then the way along each, some more than once."""
    depth = rng.randint(1, DEEPEST_WRITTEN)
    chains = _draw(rng, depth)
    ways = [*chains, *rng.choices(chains, k=REPEATED_WAYS)]
    return [*_roads(rng, chains), *(["way", *chain, "."] for chain in rng.sample(ways, len(ways)))]


def chain_exam(rng: random.Random, depth: int) -> Exam:
    """The way from a station, `depth` roads (1 to 10) long, among ways that take a wrong turn.

    The options are whole ways. A wrong one leaves the right way at a random step for another station of the document and goes
    on along the roads from there.
    """
    chains = _draw(rng, depth)
    asked, *others = chains
    context = joined([*_roads(rng, chains), ["way", asked[0]]])
    wrong: set[str] = set()
    while len(wrong) < OPTIONS - 1:
        turn = rng.randint(1, depth)
        elsewhere = [*asked[turn + 1 :], *itertools.chain(*others)]
        wrong.add(" " + " ".join(_turned(asked, turn, rng.choice(elsewhere), chains)))
    return Exam(context, (" " + " ".join(asked[1:]), *sorted(wrong)))


def _turned(asked: Sequence[str], turn: int, station: str, chains: Sequence[Sequence[str]]) -> list[str]:
    """The way `asked` up to `turn`, then `station` and what its roads lead to; where they end, the second chain from its start."""
    follow = {a: b for chain in chains for a, b in itertools.pairwise(chain)}
    way = [*asked[1:turn], station]
    while len(way) < len(asked) - 1:
        way.append(follow.get(way[-1], chains[1][0]))
    return way


def _draw(rng: random.Random, depth: int) -> list[list[str]]:
    """Chains of `depth` roads without common stations: three short ones, or two."""
    count, size = 3 if depth < 3 else 2, depth + 1
    stations = rng.sample(STATIONS, count * size)
    return [stations[start : start + size] for start in range(0, count * size, size)]


def _roads(rng: random.Random, chains: Sequence[Sequence[str]]) -> list[list[str]]:
    roads = [["road", a, b, "."] for chain in chains for a, b in itertools.pairwise(chain)]
    rng.shuffle(roads)
    return roads

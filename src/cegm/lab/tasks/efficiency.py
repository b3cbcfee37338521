"""Reasoning efficiency: accuracy by the number of steps that an answer takes, and what a right answer costs (the paper's figure 2).

- *Generated*: deductions over chains of 1 to 10 links of the embedded world; the level is the number of links.
- *Real*: bAbI qa1, qa2 and qa3 (arXiv 1502.05698; the level is the number of supporting facts) and BIG-Bench Hard (arXiv 2210.09261)
  logical_deduction and tracking_shuffled_objects (the level is the number of objects).

Trap: two models of one architecture take equal time per token, and here they read equal tokens. What "efficiency" can differ in is
correctness alone, so `cost_per_correct` adds no evidence to accuracy; it says what the difference is worth. Text grows with the level, so
costs are to be compared within a level.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from cegm.lab import world
from cegm.lab.tasks.axis import ChoiceAxis, exams
from cegm.lab.tasks.items import Item, Record, Source, spread, stable_seed
from cegm.lab.tasks.public import babi, bbh

NAME = "efficiency"
DEPTHS = range(1, 11)
FACTS = (1, 2, 3)
OBJECTS = {3: "three", 5: "five", 7: "seven"}
PUZZLES = ("logical_deduction", "tracking_shuffled_objects")


@dataclass(frozen=True)
class Cost:
    """Seconds, and tokens read, per right answer; infinite where none is right."""

    seconds: float
    tokens: float


def cost_per_correct(seconds: float, tokens: float, records: Sequence[Record]) -> Cost:
    """Cost of one right answer, where answering all the records took so many seconds and tokens."""
    right = sum(record.score for record in records)
    return Cost(seconds / right, tokens / right) if right else Cost(math.inf, math.inf)


def published(source: Source, items: int, seed: int) -> dict[str, Callable[[], list[Item]]]:
    """File -> what reads it and draws its questions."""
    readers = {f"babi qa{facts}": partial(babi.items, source, facts, facts) for facts in FACTS}
    for puzzle, (count, word) in product(PUZZLES, OBJECTS.items()):
        task = f"{puzzle}_{word}_objects"
        readers[task] = partial(bbh.items, source, task, puzzle, count)

    def drawn(name: str) -> list[Item]:
        return spread([readers[name]()], items, random.Random(stable_seed(NAME, name, seed)))

    return {name: partial(drawn, name) for name in readers}


AXIS = ChoiceAxis(
    name=NAME,
    title="Reasoning efficiency",
    paper="Figure 2",
    measure="share of questions whose right answer is strictly the most likely option, by depth",
    level="links of the chain, supporting facts, or objects",
    control="guessing gets one over the number of options; in babi the place named last .53, .40 and .14",
    sets=("babi", "bbh"),
    generated=partial(exams, NAME, world.chain_exam, DEPTHS),
    real=published,
)

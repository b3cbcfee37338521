"""Long-form reasoning: an answer that follows only from several statements together (the paper's table I).

- *Generated*: deductions over chains of 2 to 4 links of the embedded world; the level is the number of links. Options are names in the same
  text.
- *Real*: bAbI (arXiv 1502.05698; all 20 tasks, options are all answers of the task), FOLIO (arXiv 2209.00840; does a conclusion follow from
  premises: True, False or Uncertain) and BIG-Bench Hard (arXiv 2210.09261; the 23 tasks that have options).

The answer is exact, by likelihood over the options. Questions are drawn evenly over the tasks of a set; several questions about one story,
or conclusions from the same premises, are one cluster.

Traps: small models are at chance on BIG-Bench Hard and on FOLIO (and so were much larger ones, see both papers): a difference there means
nothing unless some method is above chance. A constant answer gets the share of the most frequent one, which is above chance in bAbI where
answers are yes and no, or sets with a usual one.
"""

from __future__ import annotations

import json
import random

from cegm import world
from cegm.tasks.asking import Item, generated, scored, spread
from cegm.tasks.axis import Axis, NotMeasured, Record, Source, form_of, public, stable_seed
from cegm.tasks.examinee import Choice, Examinee
from cegm.tasks.public import babi, bbh
from cegm.tasks.public.files import text_of
from cegm.tasks.subsets import available

NAME = "reasoning"
DEPTHS = (2, 3, 4)
LABELS = ("True", "False", "Uncertain")


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """A record per question: `items` of every depth, or of every public set."""
    return scored(examinee, NAME, form_of(source), questions(source, items, seed))


def questions(source: Source, items: int, seed: int) -> list[Item]:
    """All that is asked, whoever answers."""
    if form_of(source) == "generated":
        return generated(NAME, world.chain_exam, DEPTHS, items, seed)
    return published(source, items, seed)


def published(source: Source, items: int, seed: int) -> list[Item]:
    """Questions of the public sets that are there."""

    def drawn(subset: str, groups: list[list[Item]]) -> list[Item]:
        return spread(groups, items, random.Random(stable_seed(NAME, subset, seed)))

    return available(
        {
            "babi": lambda: drawn("babi", [babi.items(source, task) for task in babi.TASKS]),
            "folio": lambda: drawn("folio", [folio_items(source)]),
            "bbh": lambda: drawn("bbh", [bbh.items(source, task, "bbh") for task in bbh.tasks(source)]),
        }
    )


def folio_items(source: Source) -> list[Item]:
    """The validation conclusions of FOLIO (CC BY-SA 4.0); a cluster is a set of premises.

    Raises:
        NotMeasured: The file is missing, truncated or malformed.
    """
    path = public(source, "folio", "data", "v0.0", "folio-validation.jsonl")
    clusters: dict[str, str] = {}
    items = []
    for place, line in enumerate(text_of(path).splitlines(), 1):
        try:
            row = json.loads(line)
            premises = " ".join(text.strip() for text in row["premises"])
            others = [label for label in LABELS if label != row["label"]]
            conclusion = row["conclusion"].strip()
        except (ValueError, KeyError, TypeError, AttributeError):
            raise NotMeasured(f"{path}, line {place}: no premises, conclusion and label; copy the set again") from None
        if len(others) != len(LABELS) - 1:
            raise NotMeasured(f"{path}, line {place}: label {row['label']!r} is none of {LABELS}; copy the set again")
        asked = f"{premises}\nConclusion: {conclusion}\nTrue, False or Uncertain? Answer:"
        cluster = clusters.setdefault(premises, str(place))
        options = tuple(f" {label}" for label in (row["label"], *others))
        items.append(Item(Choice(asked, options), "folio", str(place), cluster))
    return items


AXIS = Axis(
    name=NAME,
    title="Long-form reasoning",
    paper="Table I",
    measure="share of questions whose right answer is strictly the most likely option",
    unit="accuracy",
    better="higher",
    level="links of the chain (generated only)",
    control="guessing gets one over the number of options",
    measured=measure,
    sets=("babi", "bbh", "folio"),
)

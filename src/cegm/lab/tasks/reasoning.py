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

import random
from collections.abc import Callable
from functools import partial

from cegm.lab import world
from cegm.lab.tasks.axis import ChoiceAxis, exams
from cegm.lab.tasks.items import Choice, Item, Source, spread, stable_seed
from cegm.lab.tasks.public import babi, bbh
from cegm.lab.tasks.public.reading import damaged, json_rows, public, text_of

NAME = "reasoning"
DEPTHS = (2, 3, 4)
LABELS = ("True", "False", "Uncertain")


def published(source: Source, items: int, seed: int) -> dict[str, Callable[[], list[Item]]]:
    """Set -> what reads it and draws its questions, evenly over its tasks."""
    tasks: dict[str, Callable[[], list[list[Item]]]] = {
        "babi": lambda: [babi.items(source, task) for task in babi.TASKS],
        "folio": lambda: [conclusions(source)],
        "bbh": lambda: [bbh.items(source, task, "bbh") for task in bbh.tasks(source)],
    }

    def drawn(subset: str) -> list[Item]:
        return spread(tasks[subset](), items, random.Random(stable_seed(NAME, subset, seed)))

    return {subset: partial(drawn, subset) for subset in tasks}


def conclusions(source: Source) -> list[Item]:
    """The validation conclusions of FOLIO (CC BY-SA 4.0); a cluster is a set of premises.

    Layout: `folio/data/v0.0/folio-validation.jsonl`, one object per line: `premises`, `conclusion` and `label`.
    """
    path = public(source, "folio", "data", "v0.0", "folio-validation.jsonl")
    clusters: dict[str, str] = {}
    questions = []
    for place, row in enumerate(json_rows(text_of(path), path, "premises", "conclusion", "label"), 1):
        others = [label for label in LABELS if label != row["label"]]
        try:
            premises, conclusion = " ".join(text.strip() for text in row["premises"]), row["conclusion"].strip()
        except (TypeError, AttributeError):
            raise damaged(path, place, "premises or conclusion that are no text") from None
        if len(others) != len(LABELS) - 1:
            raise damaged(path, place, f"label {row['label']!r} is none of {LABELS}")
        asked = f"{premises}\nConclusion: {conclusion}\nTrue, False or Uncertain? Answer:"
        options = tuple(f" {label}" for label in (row["label"], *others))
        questions.append(Item(Choice(asked, options), "folio", str(place), clusters.setdefault(premises, str(place))))
    return questions


AXIS = ChoiceAxis(
    name=NAME,
    title="Long-form reasoning",
    paper="Table I",
    measure="share of questions whose right answer is strictly the most likely option",
    level="links of the chain (generated only)",
    control="guessing gets one over the number of options",
    sets=("babi", "bbh", "folio"),
    generated=partial(exams, NAME, world.chain_exam, DEPTHS),
    real=published,
)

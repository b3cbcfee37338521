"""Summaries, a pilot: a paper in one sentence.

The only form is the *real* one: SciTLDR test split (`sci_scitldr`, arXiv 2004.15011). The model goes on greedily after the abstract and
`TL;DR:` (as in the GPT-2 report); the first line that it writes is its summary.

Primary: ROUGE-1 (F1, stemmed) against the reference it fits best. A second subset per writer, `copied by ...`, is the share of its triples
of neighbouring words that stand in the abstract: a model can score by copying. An empty summary scores 0 and is marked unreadable.
Continuous: ROUGE-L against the same references.

Controls: the paper's title (ROUGE-1 .404) and the abstract's first sentence.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence

from rouge_score import rouge_scorer

from cegm.lab.tasks.axis import PILOT, Axis
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import Record, Source, stable_seed
from cegm.lab.tasks.public.documents import Paper, papers

NAME = "summaries"
CUE = "\nTL;DR:"
TOKENS = 40
A_LINE = re.compile(r"\S.*\n")
SCORER = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=True)


def rouge(references: Sequence[str], summary: str) -> tuple[float, float]:
    """ROUGE-1 and ROUGE-L F1, each against the reference that gives most."""
    scores = [SCORER.score(reference, summary) for reference in references]
    return max(s["rouge1"].fmeasure for s in scores), max(s["rougeL"].fmeasure for s in scores)


def copied(abstract: str, summary: str) -> float:
    """Share of the summary's triples of neighbouring words that the abstract has; NaN if it has no three words."""
    triples = _triples(summary)
    known = set(_triples(abstract))
    return sum(triple in known for triple in triples) / len(triples) if triples else math.nan


def _triples(text: str) -> list[tuple[str, str, str]]:
    words = text.lower().split()
    return list(zip(words, words[1:], words[2:], strict=False))


CONTROLS: dict[str, Callable[[Paper], str]] = {
    "title": lambda paper: paper.title,
    "first sentence": lambda paper: paper.first_sentence,
}


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """ROUGE and copying of `items` summaries by the model and by the controls."""
    test = papers(source, "test")
    chosen = random.Random(stable_seed(NAME, seed)).sample(test, min(items, len(test)))
    written = examinee.write([paper.abstract + CUE for paper in chosen], TOKENS, A_LINE.search)
    summaries = {"model": [next(iter(text.strip().splitlines()), "") for text in written]}
    summaries |= {f"control: {name}": [control(p) for p in chosen] for name, control in CONTROLS.items()}
    return [
        r for subset, texts in summaries.items() for p, t in zip(chosen, texts, strict=True) for r in _two(subset, p, t)
    ]


def _two(subset: str, paper: Paper, summary: str) -> list[Record]:
    one, longest = rouge(paper.summaries, summary)
    share = copied(paper.abstract, summary)
    other = f"copied by {subset.removeprefix('control: ')}"
    readable = bool(summary.strip())
    scored = Record(NAME, "real", subset, paper.name, paper.name, 0, one, longest, math.nan, readable)
    if math.isnan(share):
        return [scored]
    return [scored, Record(NAME, "real", other, paper.name, paper.name, 0, share, share, math.nan)]


AXIS = Axis(
    name=NAME,
    title="Summaries",
    paper=PILOT,
    measure="ROUGE-1 of a summary in one sentence, 0 to 1",
    unit="similarity",
    control="copying the title gets .404 (subset `control: title`), the first sentence less",
    measured=measure,
    primary=("model",),
    sets=("sci_scitldr",),
)

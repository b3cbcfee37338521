"""A company's own task, a pilot: answers, passages or summaries as it would ship them, on rows that were fixed before anything was trained.

The only form is the *real* one: a folder `company` with `train.jsonl` and `test.jsonl`, as `cegm pilot fix` writes it from a company's file or
from a public set (`cegm.lab.tasks.company_rows`). What is asked depends on their kind:

- answers (`faq`): `chosen`, the model's own choice among the ten answers that word search (BM25 over the training questions) finds, by the
  likelihood of an answer after the question; `embedded`, the answer with the nearest centroid, from ten questions of each.
- passages (`search`): `chosen`, the one of five passages that BM25 finds after which the question is likeliest; `embedded`, the nearest of all
  passages, which are those of the test and others up to 200.
- summaries: `rouge`, ROUGE-1 against the reference that fits best; `copied`, as in `cegm.lab.tasks.summaries`; `likeness`, the cosine of
  MiniLM's embeddings, where that is installed.

A right answer that word search did not find is wrong whatever the model thinks of it: so it would be at work. `answered` holds the 80 % of the
questions with the largest lead of the first candidate over the second; 1 minus its mean is the wrong-answer rate at that coverage.

Control: BM25's own first candidate, or the first sentence of a text (`control`). Chance: one over all answers or passages.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import bm25s
import numpy as np

from cegm.lab.tasks.axis import PILOT, Axis
from cegm.lab.tasks.company_rows import FIELDS, TASKS, Row, Task, plain_rows
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.faq import COVERAGE, similarities
from cegm.lab.tasks.items import Choice, NotMeasured, Record, Source, shuffled
from cegm.lab.tasks.minilm import minilm
from cegm.lab.tasks.public.reading import json_rows, public, text_of
from cegm.lab.tasks.search import K1, B, cosine_scores, gain, ranks
from cegm.lab.tasks.search import Query as Searched
from cegm.lab.tasks.summaries import A_LINE, copied, rouge

NAME = "company"
TRAIN, TEST = "train.jsonl", "test.jsonl"
CUES: dict[Task, str] = {"faq": "\nAnswer:", "search": "\nQuestion:", "summaries": "\nTL;DR:"}
"""What stands between what is read and what is written."""

CANDIDATES = {"faq": 10, "search": 5}
"""Of word search, among which the model chooses."""

QUESTIONS_OF_AN_ANSWER = 10
PASSAGES = 200
SUMMARY_TOKENS = 60
SENTENCE_ENDS = (". ", "。", "? ", "! ")


def lesson(task: Task, row: Row) -> dict[str, str]:
    """A row as a model learns it: what it reads, and what it shall write."""
    read, written = (row.answer, row.asked) if task == "search" else (row.asked, row.answer)
    return {"prompt": read + CUES[task], "completion": f" {written}\n" if task == "summaries" else f" {written}"}


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """The measures of whatever task the folder holds, of `items` of its rows."""
    folder = public(source, "company", TEST).parent
    task = _task(folder)
    train, test = (plain_rows(folder / name, task) for name in (TRAIN, TEST))
    return MEASURES[task](examinee, train, shuffled(test, NAME, seed)[:items])


def _task(folder: Path) -> Task:
    """The task whose fields the first row has."""
    path = folder / TEST
    first = json_rows(text_of(path).split("\n")[0], path)[0]
    for task in TASKS:
        if set(FIELDS[task]) <= first.keys():
            return task
    raise NotMeasured(f"{path} holds no row of a pilot; run cegm pilot fix again")


@dataclass(frozen=True)
class WordSearch:
    """BM25 over texts, each of which leads to a target: an answer to its question, a passage to itself."""

    texts: Sequence[str]
    targets: Sequence[str]

    def candidates(self, questions: Sequence[str], count: int) -> list[list[str]]:
        """The first `count` different targets for each question."""
        index = bm25s.BM25(k1=K1, b=B)
        index.index(bm25s.tokenize(list(self.texts), stopwords=None, show_progress=False), show_progress=False)
        words = bm25s.tokenize(list(questions), stopwords=None, show_progress=False, return_ids=False)
        return [self._first(index.get_scores(each), count) for each in words]

    def _first(self, scores: np.ndarray, count: int) -> list[str]:
        found: dict[str, None] = {}
        for place in np.argsort(-scores, kind="stable"):
            found[self.targets[place]] = None
            if len(found) == count:
                break
        return list(found)


def _answers(examinee: Examinee, train: Sequence[Row], asked: Sequence[Row]) -> list[Record]:
    classes = sorted({row.answer for row in train})
    found = WordSearch([row.asked for row in train], [row.answer for row in train]).candidates(
        [row.asked for row in asked], CANDIDATES["faq"]
    )
    cue = CUES["faq"]
    choices = [
        Choice(row.asked + cue, tuple(f" {answer}" for answer in _right_first(row, candidates)))
        for row, candidates in zip(asked, found, strict=True)
    ]
    records = _chosen(asked, found, examinee.choose(choices), 1 / len(classes))
    by_answer: dict[str, list[Row]] = {answer: [] for answer in classes}
    for row in train:
        by_answer[row.answer].append(row)
    known = [row for own in by_answer.values() for row in own[:QUESTIONS_OF_AN_ANSWER]]
    scores = similarities(
        examinee.embed([row.asked for row in known]),
        [row.answer for row in known],
        examinee.embed([row.asked for row in asked]),
        classes,
    )
    for row, likeness in zip(asked, scores, strict=True):
        right = classes.index(row.answer)
        margin = float(likeness[right] - np.delete(likeness, right).max(initial=-1.0))
        records.append(_record("embedded", row, float(margin > 0), margin, 1 / len(classes)))
    return records


def _passages(examinee: Examinee, train: Sequence[Row], asked: Sequence[Row]) -> list[Record]:
    every = dict.fromkeys([*(row.answer for row in asked), *(row.answer for row in shuffled(train, NAME))])
    documents = list(every)[: max(PASSAGES, len({row.answer for row in asked}))]
    found = WordSearch(documents, documents).candidates([row.asked for row in asked], CANDIDATES["search"])
    cue, likelihoods = CUES["search"], []
    for row, candidates in zip(asked, found, strict=True):
        after = [Choice(passage + cue, (f" {row.asked}",)) for passage in _right_first(row, candidates)]
        likelihoods.append([own for (own,) in examinee.choose(after)])
    records = _chosen(asked, found, likelihoods, 1 / len(documents))
    queries = [Searched(row.name, row.name, row.asked, documents.index(row.answer)) for row in asked]
    places = ranks(cosine_scores(examinee, documents, queries), [query.right for query in queries])
    return records + [
        _record("embedded", row, float(place == 0), gain(place), 1 / len(documents))
        for row, place in zip(asked, places, strict=True)
    ]


def _summaries(examinee: Examinee, train: Sequence[Row], asked: Sequence[Row]) -> list[Record]:
    texts = examinee.write([row.asked + CUES["summaries"] for row in asked], SUMMARY_TOKENS, partial(re.search, A_LINE))
    written = [next(iter(text.strip().splitlines()), "") for text in texts]
    records, judge = [], minilm()
    for row, summary in zip(asked, written, strict=True):
        one, longest = rouge(row.answers, summary)
        records.append(_record("rouge", row, one, longest, math.nan, bool(summary.strip())))
        records.append(_record("control", row, *rouge(row.answers, _first_sentence(row.asked)), math.nan))
        if not math.isnan(share := copied(row.asked, summary)):
            records.append(_record("copied", row, share, share, math.nan))
        if judge is not None:
            cosine = float(max(judge.embed(list(row.answers)) @ judge.embed([summary or " "])[0]))
            records.append(_record("likeness", row, cosine, cosine, math.nan))
    return records


MEASURES: dict[Task, Callable[[Examinee, Sequence[Row], Sequence[Row]], list[Record]]] = {
    "faq": _answers,
    "search": _passages,
    "summaries": _summaries,
}


def _right_first(row: Row, candidates: Sequence[str]) -> list[str]:
    """The right answer, then the other candidates."""
    return [row.answer, *(each for each in candidates if each != row.answer)]


def _chosen(
    asked: Sequence[Row], found: Sequence[Sequence[str]], likelihoods: Sequence[Sequence[float]], chance: float
) -> list[Record]:
    """Records of a choice among candidates, whose right one comes first in `likelihoods`; of the surest; and of the control."""
    records, leads = [], []
    for row, candidates, own in zip(asked, found, likelihoods, strict=True):
        margin = own[0] - max(own[1:], default=-math.inf)
        offered = own if row.answer in candidates else own[1:]
        first, *rest = sorted(offered, reverse=True)
        leads.append(first - rest[0] if rest else math.inf)
        right = float(margin > 0 and row.answer in candidates)
        records.append(_record("chosen", row, right, min(margin, 1e9), chance))
    surest = sorted(np.argsort(-np.array(leads), kind="stable")[: round(COVERAGE * len(asked))].tolist())
    answered = [_record("answered", asked[i], records[i].score, records[i].continuous, chance) for i in surest]
    firsts = [float(candidates[0] == row.answer) for row, candidates in zip(asked, found, strict=True)]
    control = [_record("control", row, right, right, chance) for row, right in zip(asked, firsts, strict=True)]
    return records + answered + control


def _record(subset: str, row: Row, score: float, finer: float, chance: float, readable: bool = True) -> Record:
    return Record(NAME, "real", subset, row.name, row.name, 0, score, finer, chance, readable)


def _first_sentence(text: str) -> str:
    ends = [place + len(end) for end in SENTENCE_ENDS if (place := text.find(end)) >= 0]
    return text[: min(ends, default=len(text))].strip()


AXIS = Axis(
    name=NAME,
    title="A company's own task",
    paper=PILOT,
    measure="right answers or passages by the model's own choice, or ROUGE-1 of summaries",
    control="the first that word search finds, or the first sentence (subset `control`)",
    measured=measure,
    primary=("chosen", "rouge"),
    sets=("company",),
)

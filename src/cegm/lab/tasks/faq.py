"""Answers to customers, a pilot: which of 77 answers does a question ask for?

The only form is the *real* one: Banking77 (`faq_banking77`, arXiv 2003.04807). The intent whose centroid is nearest wins: the mean of the
embeddings of its questions in the train split, by the cosine of mean last hidden states, all centred on the mean of the train split.

Primary: accuracy over test questions (subset `model`). A desk may pass on what it is unsure of: subset `answered by model` holds the 80 %
of the questions with the greatest distance between the nearest centroid and the next; its wrong-answer rate is 1 minus its mean. Those are
other questions for other models, so they pair only in part.
Continuous: similarity to the right centroid minus the greatest to a wrong one. Chance: 1/77.

Control: the same with words weighted by TF-IDF in place of embeddings (`control: TF-IDF`).
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from cegm.lab.tasks.axis import PILOT, Axis
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import NotMeasured, Record, Source, stable_seed
from cegm.lab.tasks.public.reading import damaged, json_of, public, text_of

NAME = "faq"
COVERAGE = 0.8
Vectors = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Query:
    """A question and its intent."""

    name: str
    text: str
    intent: str


def intents(source: Source) -> list[str]:
    """Names of the intents of Banking77 (PolyAI-LDN/task-specific-datasets, CC BY 4.0), from `banking_data/categories.json`."""
    return list(json_of(public(source, "faq_banking77", "banking_data", "categories.json")))


def queries(source: Source, split: Literal["train", "test"]) -> list[Query]:
    """Questions of a split, in file order, from `banking_data/{train,test}.csv` with the columns text and category."""
    known = intents(source)
    path = public(source, "faq_banking77", "banking_data", f"{split}.csv")
    rows = csv.reader(io.StringIO(text_of(path)), strict=True)
    questions: list[Query] = []
    try:
        if next(rows) != ["text", "category"]:
            raise damaged(path, 1, "columns are not text,category")
        for row in rows:
            if len(row) != 2 or row[1] not in known:
                raise damaged(path, rows.line_num, "no text with a known intent")
            questions.append(Query(f"{split}-{len(questions)}", " ".join(row[0].split()), row[1]))
    except csv.Error as error:
        raise damaged(path, rows.line_num, error) from error
    return questions


def similarities(known: Vectors, meant: Sequence[str], asked: Vectors, classes: Sequence[str]) -> Vectors:
    """Cosine of each embedding that is asked with the centroid of each class of the known ones, (questions, classes)."""
    middle = known.mean(0)
    known, asked = normalize(known - middle), normalize(asked - middle)
    member = np.array(meant)
    centroids = np.stack([known[member == each].mean(0) for each in classes])
    return asked @ normalize(centroids).T


def words_weighted(known: Sequence[str], asked: Sequence[str]) -> tuple[Vectors, Vectors]:
    """TF-IDF vectors of both, as the known ones weigh words: the control."""
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    first = vectorizer.fit_transform(known).toarray()
    return first, vectorizer.transform(asked).toarray()


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Accuracy over `items` test questions, and over the surest of them."""
    classes = intents(source)
    known, test = queries(source, "train"), queries(source, "test")
    lacking = set(classes) - {query.intent for query in known}
    if lacking:
        raise NotMeasured(f"train.csv of faq_banking77 has no question of {sorted(lacking)[0]}; fetch the file again")
    asked = random.Random(stable_seed(NAME, seed)).sample(test, min(items, len(test)))
    texts = [query.text for query in known], [query.text for query in asked]
    vectors = {
        "model": (examinee.embed(texts[0]), examinee.embed(texts[1])),
        "control: TF-IDF": words_weighted(*texts),
    }
    meant = [query.intent for query in known]
    return [
        record
        for subset, (first, second) in vectors.items()
        for record in _records(subset, asked, similarities(first, meant, second, classes), classes)
    ]


def _records(subset: str, asked: Sequence[Query], scores: Vectors, classes: Sequence[str]) -> list[Record]:
    right = np.array([classes.index(query.intent) for query in asked])
    rows = np.arange(len(asked))
    wrong = scores.copy()
    wrong[rows, right] = -np.inf
    margins = scores[rows, right] - wrong.max(1)
    ordered = np.sort(scores, axis=1)
    surest = np.argsort(ordered[:, -2] - ordered[:, -1], kind="stable")[: round(COVERAGE * len(asked))]

    def record(name: str, row: int) -> Record:
        query, margin = asked[row], float(margins[row])
        return Record(NAME, "real", name, query.name, query.name, 0, float(margin > 0), margin, 1 / len(classes))

    every = [record(subset, row) for row in range(len(asked))]
    return every + [record(f"answered by {subset.removeprefix('control: ')}", row) for row in sorted(surest.tolist())]


AXIS = Axis(
    name=NAME,
    title="Answers to customers",
    paper=PILOT,
    measure="share of questions whose intent has the nearest centroid",
    control="nearest centroid of TF-IDF vectors (subset `control: TF-IDF`)",
    measured=measure,
    primary=("model",),
    sets=("faq_banking77",),
)

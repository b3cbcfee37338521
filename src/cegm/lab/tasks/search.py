"""Known-item search, a pilot: does a summary lead to the abstract it summarises?

The only form is the *real* one: SciTLDR (`sci_scitldr`, arXiv 2004.15011). A query is a summary that a reader of a paper's reviews wrote
(test split, all but the first of a paper); it shall find that paper among the abstracts of all three splits, 3,223 different ones, by the
cosine of mean last hidden states. All of them are centred on the mean of the abstracts, since the states of a language model share one
large direction.

Primary: recall@1, a tie is wrong. Continuous: nDCG@10, which for one right document is 1 / log2(2 + documents before it), 0 beyond ten.
Traps: the author's own summaries (a paper's first) repeat the abstract's words, so BM25 finds 84 % of them; of those by readers it finds 56
%, which is what a model has to beat. The abstracts that come twice count as one document.

Control: BM25 (k1 = .9, b = .4, no stop words, no stemming) over the same texts, subset `control: BM25`.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt

from cegm.lab.tasks.axis import PILOT, Axis
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import Record, Source, stable_seed
from cegm.lab.tasks.public.documents import papers

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it reports every index it builds
NAME = "search"
K1, B = 0.9, 0.4
"""Constants of the Anserini toolkit and of most published baselines."""

CUT = 10
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Query:
    """A summary and the place of its abstract among the documents."""

    name: str
    paper: str
    text: str
    right: int


def collection(source: Source) -> tuple[list[str], list[Query]]:
    """All different abstracts, and all queries."""
    test = papers(source, "test")
    every = [*test, *papers(source, "dev"), *papers(source, "train")]
    places = {abstract: place for place, abstract in enumerate(dict.fromkeys(paper.abstract for paper in every))}
    queries = [
        Query(f"{paper.name}-{number}", paper.name, summary, places[paper.abstract])
        for paper in test
        for number, summary in enumerate(paper.summaries[1:], 1)
    ]
    return list(places), queries


def ranks(scores: Scores, right: Sequence[int]) -> list[int]:
    """How many other documents score at least as high as the right one, for each query; `scores` are (queries, documents)."""
    least = scores[np.arange(len(scores)), right][:, None]
    return [int(count) - 1 for count in (scores >= least).sum(1)]


def bm25_scores(documents: Sequence[str], queries: Sequence[Query]) -> Scores:
    """BM25 of every document for every query, (queries, documents)."""
    index = bm25s.BM25(k1=K1, b=B)
    index.index(bm25s.tokenize(list(documents), stopwords=None, show_progress=False), show_progress=False)
    words = bm25s.tokenize([query.text for query in queries], stopwords=None, show_progress=False, return_ids=False)
    return np.stack([index.get_scores(each) for each in words])


def cosine_scores(examinee: Examinee, documents: Sequence[str], queries: Sequence[Query]) -> Scores:
    """Cosine of centred embeddings of every document for every query, (queries, documents)."""
    known = examinee.embed(documents)
    asked = examinee.embed([query.text for query in queries]) - known.mean(0)
    known = known - known.mean(0)
    return _unit(asked) @ _unit(known).T


def _unit(vectors: Scores) -> Scores:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Recall of the right abstract for `items` queries, by the model and by BM25."""
    documents, queries = collection(source)
    chosen = random.Random(stable_seed(NAME, seed)).sample(queries, min(items, len(queries)))
    right = [query.right for query in chosen]
    places = {
        "model": ranks(cosine_scores(examinee, documents, chosen), right),
        "control: BM25": ranks(bm25_scores(documents, chosen), right),
    }
    return [
        Record(NAME, "real", subset, q.name, q.paper, 0, float(rank == 0), gain(rank), 1 / len(documents))
        for subset, ranked in places.items()
        for q, rank in zip(chosen, ranked, strict=True)
    ]


def gain(rank: int) -> float:
    """nDCG@10 of the only right document with `rank` others before it."""
    return 1 / math.log2(2 + rank) if rank < CUT else 0.0


AXIS = Axis(
    name=NAME,
    title="Known-item search",
    paper=PILOT,
    measure="share of summaries whose abstract comes first (recall@1)",
    control="BM25 gets .56 (subset `control: BM25`)",
    measured=measure,
    primary=("model",),
    sets=("sci_scitldr",),
)

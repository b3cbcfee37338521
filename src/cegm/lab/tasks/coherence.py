"""Embedding coherence: a text lies nearer to its rephrasing than to texts that look like it and mean something else (the paper's table V).

An embedding is the mean of the last hidden states of a text. Five techniques of rephrasing are reported apart, as subsets: `lexical` (other
words), `syntactic` (another order), `contextual` (what surrounds it), `dropout` (without some words), `mixed`. Score: whether the anchor is
nearer to its rephrasing than to *every* negative, by cosine. Continuous: one over the rank of the anchor among all anchors of the technique,
seen from the rephrasing; it falls with the number of items, so compare equal numbers only.

Trap: a raw cosine flatters a collapsed space, in which everything lies near everything. Hence negatives that change the meaning, and cosines
from the middle of all texts of the technique. The middle is that of one technique and not of all: what a register or a set has in common then
tells nothing, and a set that is missing changes no other.

- *Generated*: rephrasings of the embedded world, each with negatives that are changed as much on the surface.
- *Real* (`lookalikes.py`): `syntactic` and `mixed` from WikiSplit (sentences against their two halves), `contextual` from AmbiEnt (an
  ambiguous sentence with one that settles it against its readings written out; the right one shares more words with what settles it in 60 %
  of cases), `dropout` from the English Web Treebank. `lexical` is not measured: none of the public sets has synonyms in context.

A model with random weights is no random answerer: its embeddings are much like bags of letters, and letters tell where a rephrasing changes
fewer of them than a negative does, or are misleading where it changes more. Compare with an untrained model, not with chance alone, and on
real text with two other embedders of the same cases, in subsets `control: ...`: TF-IDF of words and pairs of neighbours, which knows letters
only, and, where it is installed, MiniLM (`minilm.py`), which was made to tell what means the same. Causal
models are poor embedders, for early words see nothing; what is compared here is models of one kind.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from cegm.lab import world
from cegm.lab.tasks.axis import Axis
from cegm.lab.tasks.examinee import Array, Examinee
from cegm.lab.tasks.items import Form, Record, Source, available, form_of, stable_seed
from cegm.lab.tasks.lookalikes import TECHNIQUES, Case
from cegm.lab.tasks.minilm import minilm

NAME = "coherence"

RESOLUTION = 1e-6
"""Differences that embeddings in float32 cannot tell, as a share: of cosines, and of the distance from the middle."""


class Embedder(Protocol):
    """Whatever has a vector for a text."""

    def embed(self, texts: Sequence[str]) -> Array:
        """Vectors, (texts, features)."""


class Words:
    """Words and pairs of neighbours, weighted by how rare they are among the texts."""

    def embed(self, texts: Sequence[str]) -> Array:
        """TF-IDF vectors, (texts, words)."""
        weigher = TfidfVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
        found: Array = weigher.fit_transform(texts).toarray()
        return found


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Scores `items` cases per technique, and on real text what others than the model make of them."""
    form, controls = form_of(source), dict[str, Embedder]()
    if form == "real":
        controls["TF-IDF"] = Words()
        if (judge := minilm()) is not None:
            controls["MiniLM"] = judge

    def measured(technique: str) -> list[Record]:
        asked = cases(source, technique, items, seed)
        records = judged(examinee, form, technique, asked)
        for name, control in controls.items():
            records += judged(control, form, f"control: {name} {technique}", asked)
        return records

    return available({technique: partial(measured, technique) for technique in world.TECHNIQUES})


def cases(source: Source, technique: str, items: int, seed: int) -> list[Case]:
    """Up to `items` cases of one technique."""
    if form_of(source) == "real":
        return TECHNIQUES[technique](source, items, seed)
    drawn = [world.rephrasing(random.Random(stable_seed(NAME, technique, seed, i)), technique) for i in range(items)]
    return [Case(str(i), str(i), each.anchor, each.rephrased, each.negatives) for i, each in enumerate(drawn)]


def judged(embedder: Embedder, form: Form, subset: str, asked: Sequence[Case]) -> list[Record]:
    """Embeds all texts of these cases at once and records how they lie; a tie is wrong."""
    places: dict[str, int] = {}
    for case in asked:
        for text in (case.anchor, case.rephrased, *case.negatives):
            places.setdefault(text, len(places))
    near = cosines(embedder.embed(list(places)))
    anchors = sorted({places[case.anchor] for case in asked})
    records = []
    for case in asked:
        anchor, rephrased = places[case.anchor], places[case.rephrased]
        closest = max(near[anchor, places[negative]] for negative in case.negatives)
        least = near[rephrased, anchor] - RESOLUTION
        before = sum(near[rephrased, other] >= least for other in anchors if other != anchor)
        score, rank = float(near[anchor, rephrased] > closest + RESOLUTION), 1 / (1 + float(before))
        chance = 1 / (1 + len(case.negatives))
        records.append(Record(NAME, form, subset, case.item, case.cluster, 0.0, score, rank, chance))
    return records


def cosines(vectors: Array) -> Array:
    """Cosine between any two of the vectors, (texts, hidden), as seen from their middle; zero for one that cannot be told from it."""
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > RESOLUTION * np.abs(vectors).max())
    return unit @ unit.T


AXIS = Axis(
    name=NAME,
    title="Embedding coherence",
    paper="Table V",
    measure="share of texts that lie nearer to their rephrasing than to every text that looks alike and means something else",
    control="the same vector for every text: none; a vector that ignores what the text says: chance (and subsets `control: ...`)",
    measured=measure,
    primary=world.TECHNIQUES,
    sets=("ambient", "ud_ewt", "wikisplit"),
    no_task="embeddings are compared, and the harness asks for likelihoods and texts only",
)

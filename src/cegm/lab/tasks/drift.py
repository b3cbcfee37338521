"""Semantic drift: what is left of a text after a model has rewritten it up to ten times (figure 3).

In each step 15 % of the words are masked, the same ones for every model, and the model refills them from left to right, each from all that is
before it, greedily and one word at a time. Similarity to the text of step 0 is judged by something fixed that is not the model.

- *Generated*: stories of the world; the judge counts which of the story's facts a text still states, and which it invents (F1).
- *Real*: the first 60 words of abstracts (`sci_scitldr`, arXiv 2004.15011) and policies (`legal_sitepolicy`); the judge is the cosine of words
  and pairs of neighbours, weighted by how rare they are in the set of originals (TF-IDF). Where MiniLM is installed (`minilm.py`), it
  judges the same texts, too: the cosine of its embeddings, in subsets `... by MiniLM`, which the primary measure leaves out.

Two chains that no model has written show the judge's range: `control: identity` keeps every word (similarity 1), `control: shuffled` puts a
random word of the set into every mask: words of the same text would look alike to a judge of words.

Traps: a causal model sees no right context, so it writes over what it could not have known: only models are compared, never a model with 1.
Facts that a model invents count against it, while words drawn at random rarely make one: over the first steps a poor model may fall below
the shuffled chain, which ends lowest.
A model that writes nothing leaves a placeholder that is similar to nothing, and the record is marked unreadable. A model that goes on with
the word before the mask has not written the masked word yet, so that piece is passed over.

Continuous score: the share of words that are those of step 0.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.pipeline import make_pipeline

from cegm.lab import world
from cegm.lab.tasks.axis import Axis
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import WORLD, Record, Source, available, form_of, stable_seed
from cegm.lab.tasks.minilm import MiniLM, minilm
from cegm.lab.tasks.public.documents import abstracts, policies
from cegm.lab.tasks.public.reading import Document

NAME = "drift"
STEPS = 10
MASKED = 0.15
WORDS = 60
"""Words of a real text: its beginning, so that rewriting stays cheap."""

TOKENS = 16
"""Most that is written for a word: enough for one of 14 bytes where a token is a byte, with the white space around it."""

AFTER_A_WORD = re.compile(r"\s\S+\s")
UNREADABLE = "\N{REPLACEMENT CHARACTER}"
BY_MINILM = " by MiniLM"
SETS: dict[str, Callable[[Source], list[Document]]] = {"abstracts": abstracts, "policies": policies}

Words = list[str]
Judge = Callable[[Sequence[str]], list[float]]
"""Similarity, 0 to 1, of each rewritten text to its own original."""


@dataclass(frozen=True)
class Texts:
    """Originals with their names, and who judges what becomes of them: by what is added to the subset."""

    subset: str
    names: tuple[str, ...]
    originals: tuple[str, ...]
    judges: Mapping[str, Judge]


def stories(items: int, seed: int) -> Texts:
    """Stories of the world, judged by their facts."""
    drawn = [world.story(random.Random(stable_seed(NAME, seed, index))) for index in range(items)]

    def judge(texts: Sequence[str]) -> list[float]:
        return [overlap(world.facts_in(text), story.facts) for text, story in zip(texts, drawn, strict=True)]

    names = tuple(f"story-{index}" for index in range(items))
    return Texts("model", names, tuple(story.text for story in drawn), {"": judge})


def passages(subset: str, source: Source, items: int, seed: int) -> Texts:
    """Beginnings of documents of a public set, judged by their words and, where it is installed, by MiniLM."""
    documents = SETS[subset](source)
    random.Random(stable_seed(NAME, subset, seed)).shuffle(documents)
    chosen = documents[:items]
    originals = tuple(" ".join(document.read().split()[:WORDS]) for document in chosen)
    judges = {"": rare_words(originals)}
    if (model := minilm()) is not None:
        judges[BY_MINILM] = meaning(model, originals)
    return Texts(subset, tuple(f"{subset}/{document.name}" for document in chosen), originals, judges)


def overlap(stated: frozenset[tuple[str, ...]], expected: frozenset[tuple[str, ...]]) -> float:
    """F1 of the facts that a text states against those expected."""
    return 2 * len(stated & expected) / (len(stated) + len(expected)) if expected else 0.0


def rare_words(originals: Sequence[str]) -> Judge:
    """Cosine of TF-IDF vectors of words and pairs of neighbours.

    They are hashed, so those that no original has count too: they make a text less similar.
    """
    counter = HashingVectorizer(token_pattern=r"\w+", ngram_range=(1, 2), alternate_sign=False, norm=None)
    weigher = make_pipeline(counter, TfidfTransformer(sublinear_tf=True))
    known = weigher.fit_transform(originals)  # (texts, words), rows of length 1

    def judge(texts: Sequence[str]) -> list[float]:
        cosines = np.asarray(known.multiply(weigher.transform(texts)).sum(1)).ravel()
        return [min(float(cosine), 1.0) for cosine in cosines]  # rounding may exceed 1

    return judge


def meaning(model: MiniLM, originals: Sequence[str]) -> Judge:
    """Cosine of embeddings; what points away from the original is as unlike it as can be."""
    known = model.embed(originals)
    return lambda texts: (known * model.embed(texts)).sum(1).clip(0, 1).astype(float).tolist()


@dataclass(frozen=True)
class Gap:
    """A masked word: which text, which word, and what is before it."""

    text: int
    place: int
    before: str


Refill = Callable[[Sequence[Gap]], list[str]]
"""The words for some gaps; empty where none was found."""


def written_by(examinee: Examinee) -> Refill:
    """The model's own next words."""

    def refill(gaps: Sequence[Gap]) -> list[str]:
        written = examinee.write([gap.before for gap in gaps], TOKENS, AFTER_A_WORD.search)
        return [_first_word(text) for text in written]

    return refill


def _first_word(written: str) -> str:
    """The first word that begins after white space: what is before it belongs to the word in front of the mask."""
    pieces = written.split()
    glued = bool(pieces) and not written[0].isspace()
    return next(iter(pieces[glued:]), "")


def masks(words: int, item: str, step: int) -> list[int]:
    """Which words of a text are masked in a step: the same for every model, rising."""
    count = max(1, round(MASKED * words))
    return sorted(random.Random(stable_seed(NAME, item, step)).sample(range(1, words), min(count, words - 1)))


def kept(originals: Sequence[str]) -> Refill:
    """Every mask gets its own word back: a control."""
    words = [text.split() for text in originals]
    return lambda gaps: [words[gap.text][gap.place] for gap in gaps]


def shuffled(originals: Sequence[str], seed: int) -> Refill:
    """Every mask gets a word of any original, drawn at random: a control."""
    words, rng = " ".join(originals).split(), random.Random(stable_seed(NAME, "shuffled", seed))
    return lambda gaps: [rng.choice(words) for _ in gaps]


def chain(texts: Texts, refill: Refill, together: int) -> Iterator[tuple[int, list[Words]]]:
    """Step, from 1 to 10, and the words of all texts after it; so many texts at a time."""
    words = [text.split() for text in texts.originals]
    for step in range(1, STEPS + 1):
        places = [masks(len(text), name, step) for name, text in zip(texts.names, words, strict=True)]
        for first in range(0, len(words), together):
            _rewrite(words, places, range(first, min(first + together, len(words))), refill)
        yield step, words


def _rewrite(words: list[Words], places: Sequence[Sequence[int]], texts: Sequence[int], refill: Refill) -> None:
    """One step of some texts in lock-step: the k-th masks of all of them are refilled together, while what is before them is known."""
    for turn in range(max(len(places[index]) for index in texts)):
        gaps = [
            Gap(index, places[index][turn], " ".join(words[index][: places[index][turn]]))
            for index in texts
            if turn < len(places[index])
        ]
        for gap, word in zip(gaps, refill(gaps), strict=True):
            words[gap.text][gap.place] = word or UNREADABLE


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Similarity to step 0 after each of ten rewrites, by the model and by the two controls."""
    if source == WORLD:
        return _records(examinee, stories(items, seed), source, seed)

    def measured(subset: str) -> list[Record]:
        return _records(examinee, passages(subset, source, items, seed), source, seed)

    return available({subset: partial(measured, subset) for subset in SETS})


def _records(examinee: Examinee, texts: Texts, source: Source, seed: int) -> list[Record]:
    form, records = form_of(source), []
    every = len(texts.names)
    chains = {
        texts.subset: (written_by(examinee), examinee.batch_size),
        f"control: identity {texts.subset}": (kept(texts.originals), every),
        f"control: shuffled {texts.subset}": (shuffled(texts.originals, seed), every),
    }
    for subset, (refill, together) in chains.items():
        for step, words in chain(texts, refill, together):
            for by, judge in texts.judges.items():
                scores = judge([" ".join(written) for written in words])
                for name, original, written, score in zip(texts.names, texts.originals, words, scores, strict=True):
                    same = sum(a == b for a, b in zip(original.split(), written, strict=True)) / len(written)
                    readable = UNREADABLE not in written
                    records.append(Record(NAME, form, subset + by, name, name, step, score, same, math.nan, readable))
    return records


AXIS = Axis(
    name=NAME,
    title="Semantic drift",
    paper="Figure 3",
    measure="similarity to step 0, mean over ten rewrites that mask and refill 15 % of the words",
    unit="similarity",
    level="rewrites",
    control="keeping every word gets 1, drawing words at random the lowest (subsets `control: ...`)",
    measured=measure,
    primary=("model", *SETS),
    sets=("legal_sitepolicy", "sci_scitldr"),
    no_task="the model rewrites texts ten times and every rewrite depends on the one before",
)

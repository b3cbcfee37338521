"""Unseen domains: how well a model predicts text unlike that it was trained on, before and after some steps on it (table IV).

Bits per byte of held-out text of five domains after 0, 50 and 200 steps of the same plain AdamW (`Examinee.studied`) on other documents of the
domain. Beside it, as exploration, what the steps cost on a quarter as many items of the home text (`home after <domain>`): forgetting is that at
50 or 200 steps minus that at 0. Of a small model of the world it was .9 to 1.9 bits; its standard error is .016 to .033 bits over 16 documents,
.007 to .013 over 64.

- *Generated*: the five registers of the world; home is its ordinary documents. Items are whole documents, their sentences carry facts.
- *Real*: proposals (`tech_peps`), abstracts (`sci_scitldr`, arXiv 2004.15011), regulations and terms (`legal_cfr_cfpb`, `legal_sitepolicy`),
  chat (`chat_irc`, arXiv 1810.11118), tweets (`social_btc`); home is novels (`general_novels`). Markup goes, names of users are replaced.
  Items are pieces of at most 600 bytes, clusters their documents.

Traps: tokens differ between tokenizers, so bytes are counted, those of the scored tokens only; adaptation and test never share a document, and
a piece that nevertheless stands in the adaptation text word for word is left out; a tokenizer that cannot spell a text must not be paid for
that (`Examinee.read` refuses). Domains differ in how predictable they are: only models are compared, never domains.

Declared beforehand: the primary measure is the mean over domains and steps, 15 cells of equal weight.
"""

from __future__ import annotations

import math
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from statistics import fmean
from typing import Literal

from cegm.lab import world
from cegm.lab.tasks.axis import Axis
from cegm.lab.tasks.examinee import Examinee, ReadToken
from cegm.lab.tasks.items import WORLD, NotMeasured, Record, Source, available, form_of, stable_seed
from cegm.lab.tasks.public.documents import abstracts, chats, laws, novels, proposals, tweets
from cegm.lab.tasks.public.reading import Document

NAME = "domains"
STEPS = (0, 50, 200)
STUDY_DOCUMENTS = 350
"""Documents of the world to adapt on: about 200 steps of 256 words."""

STUDY_CHARACTERS = 200_000
"""Characters of public sets to adapt on: about 200 steps of 256 tokens of four."""

PIECE_BYTES = 600
SHORTEST_PIECE = 200
TEST_SHARE = 1 / 3
"""Share of the documents of a public set that are tested; the others are adapted on."""

HOME = "home"
HOME_ITEMS = 1 / 4
"""Home text per item of a domain: it is read after each of the domains, and is exploration."""

DOMAINS: dict[str, Callable[[Source], list[Document]]] = {
    "technical": proposals,
    "scientific": abstracts,
    "legal": laws,
    "chat": chats,
    "social": tweets,
}


@dataclass(frozen=True)
class Piece:
    """A scored text and where it comes from."""

    item: str
    cluster: str
    text: str


@dataclass(frozen=True)
class Domain:
    """What a model adapts on, and what it is tested on."""

    study: tuple[str, ...]
    test: tuple[Piece, ...]


def domain(name: str, source: Source, items: int, seed: int) -> Domain:
    """Texts of a domain, or the home text under the name `home`."""
    if source == WORLD:
        return Domain(tuple(islice(_world(name, seed, "train"), STUDY_DOCUMENTS)), _world_test(name, items, seed))
    documents = (DOMAINS | {HOME: novels})[name](source)
    random.Random(stable_seed(NAME, name, seed)).shuffle(documents)
    tested = math.ceil(len(documents) * TEST_SHARE)
    study = tuple(_until(documents[tested:], STUDY_CHARACTERS))
    return Domain(study, tuple(_pieces(documents[:tested], "\n".join(study), items, stable_seed(NAME, name, seed))))


def _world(name: str, seed: int, split: Literal["train", "validation"]) -> Iterator[str]:
    return world.documents(seed, split) if name == HOME else world.register_documents(name, seed, split)


def _world_test(name: str, items: int, seed: int) -> tuple[Piece, ...]:
    texts = islice(_world(name, seed, "validation"), items)
    return tuple(Piece(f"{name}-{index}", f"{name}-{index}", text) for index, text in enumerate(texts))


def _until(documents: Iterable[Document], characters: int) -> Iterator[str]:
    """Texts until there are enough characters; the last one is cut."""
    for document in documents:
        if characters <= 0:
            return
        text = document.read()[:characters]
        characters -= len(text)
        yield text


def _pieces(documents: Sequence[Document], study: str, items: int, seed: int) -> Iterator[Piece]:
    """At most `items` pieces, as evenly from the documents as these allow."""
    left = items
    for index, document in enumerate(documents):
        share = math.ceil(left / (len(documents) - index))
        pieces = list(enumerate(cut(document.read())))
        random.Random(stable_seed(seed, document.name)).shuffle(pieces)
        unseen = (Piece(f"{document.name}#{place}", document.name, text) for place, text in pieces if text not in study)
        for piece in islice(unseen, share):
            yield piece
            left -= 1
        if left <= 0:
            return


def cut(text: str) -> list[str]:
    """Pieces of at most 600 bytes between white space; what is shorter than 200 bytes at the end is left out."""
    pieces, piece, size = [], "", 0
    for match in re.finditer(r"\S+\s*", text):
        bytes_ = len(match[0].encode())
        if size + bytes_ > PIECE_BYTES and piece:
            pieces.append(piece.strip())
            piece, size = "", 0
        piece, size = piece + match[0], size + bytes_
    return [each for each in [*pieces, piece.strip()] if SHORTEST_PIECE <= len(each.encode()) <= PIECE_BYTES]


def bits_per_byte(text: str, tokens: Sequence[ReadToken]) -> float:
    """Bits that a reader needed per UTF-8 byte of what it scored, from the first scored token to the last."""
    scored = text[tokens[0].start : tokens[-1].end].encode()
    return -sum(token.log_probability for token in tokens) / math.log(2) / len(scored)


def byte_bits(study: Iterable[str], texts: Iterable[str]) -> list[float]:
    """Bits per byte of each text for one who knows only how often each byte comes in the study texts (plus one each): the control."""
    counts = Counter(byte for known in study for byte in known.encode())
    total = counts.total() + 256
    costs = [-math.log2((counts[byte] + 1) / total) for byte in range(256)]
    return [fmean(costs[byte] for byte in text.encode()) for text in texts]


def measure(examinee: Examinee, source: Source, items: int, seed: int) -> list[Record]:
    """Bits per byte before and after adapting, for each domain that is there."""
    home = _home(source, math.ceil(HOME_ITEMS * items), seed)
    before = lru_cache(lambda: _bits(examinee, home))  # no adapting yet: the same for all domains, and read once

    def measured(name: str) -> list[Record]:
        texts = domain(name, source, items, seed)
        bits = byte_bits(texts.study, [piece.text for piece in texts.test])
        control = _records(f"control: bytes of {name}", texts.test, 0, bits, source)
        return _adapted(examinee, name, texts, home, before, source) + control

    return available({name: partial(measured, name) for name in DOMAINS})


def _home(source: Source, items: int, seed: int) -> tuple[Piece, ...]:
    """Home text, or nothing where its set is not there: forgetting is exploration."""
    try:
        return domain(HOME, source, items, seed).test
    except NotMeasured as reason:
        warnings.warn(f"{NAME}: forgetting is not measured: {reason}", stacklevel=3)
        return ()


def _adapted(
    examinee: Examinee,
    name: str,
    texts: Domain,
    home: tuple[Piece, ...],
    before: Callable[[], list[float]],
    source: Source,
) -> list[Record]:
    records: list[Record] = []
    for steps, student in zip(STEPS, examinee.studied(texts.study, STEPS), strict=True):
        records += _records(name, texts.test, steps, _bits(student, texts.test), source)
        records += _records(f"{HOME} after {name}", home, steps, _bits(student, home) if steps else before(), source)
    return records


def _bits(examinee: Examinee, pieces: Sequence[Piece]) -> list[float]:
    read = examinee.read([piece.text for piece in pieces])
    return [bits_per_byte(piece.text, tokens) for piece, tokens in zip(pieces, read, strict=True)]


def _records(subset: str, pieces: Sequence[Piece], steps: int, scores: list[float], source: Source) -> list[Record]:
    return [
        Record(NAME, form_of(source), subset, piece.item, piece.cluster, steps, bits, bits, math.nan)
        for piece, bits in zip(pieces, scores, strict=True)
    ]


AXIS = Axis(
    name=NAME,
    title="Unseen domains",
    paper="Table IV",
    measure="bits per byte, mean over five domains and 0, 50, 200 steps of adaptation",
    unit="bits per byte",
    better="lower",
    level="steps of adaptation",
    control="knowing only how often each byte comes (subsets `control: bytes of ...`); equal bytes get 8",
    measured=measure,
    primary=tuple(DOMAINS),
    sets=("chat_irc", "general_novels", "legal_cfr_cfpb", "legal_sitepolicy", "sci_scitldr", "social_btc", "tech_peps"),
    no_task="the model is trained on each domain between two measurements",
)

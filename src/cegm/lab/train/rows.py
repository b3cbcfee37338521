"""Documents become rows of tokens: plain text is packed into full rows, and so never padded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cegm.lab.train.conversations import conversation_rows
from cegm.lab.train.cutting import cut_after
from cegm.lab.train.data import Corpus
from cegm.lab.train.tokens import ending, opening, with_bytes

ROWS_PER_PIECE = 64
"""Long documents are cut into pieces of about this many rows, so that a short run sees all of a large corpus, not its first book."""

PIECES_AT_ONCE = 64


@dataclass(frozen=True)
class ValidationRows:
    """Held-out rows of equal length, and the text behind them.

    Attributes:
        tokens: (rows, max_length).
        bytes: UTF-8 bytes of the text that the predicted tokens (all but the first of each row) stand for.
    """

    tokens: NDArray[np.int64]
    bytes: int


def training_rows(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, max_length: int, rows: int | None, seed: int
) -> datasets.Dataset:
    """Training set: columns `input_ids`, `labels` and `row`, the number of a row of plain text or of a document of another kind.

    Rows of plain text have `max_length` tokens exactly, in an order that the seed decides, and as many are made as the run needs;
    of conversations all. ValueError where nothing is left.
    """
    if corpus.kind != "text":
        return conversation_rows(corpus.train, tokenizer, max_length, "training").rows
    pieces = list(_pieces(corpus.train, 4 * ROWS_PER_PIECE * max_length))
    random.Random(seed).shuffle(pieces)
    wanted = None if rows is None else rows * max_length
    tokens = _cut(_token_stream(pieces, tokenizer), max_length, wanted, "training")
    column = pa.FixedSizeListArray.from_arrays(pa.array(tokens.reshape(-1)), max_length).cast(pa.list_(pa.int64()))
    return datasets.Dataset(pa.table({"input_ids": column, "labels": column, "row": pa.array(range(len(tokens)))}))


def validation_rows(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, max_length: int, rows: int) -> ValidationRows:
    """The first `rows` full rows of the held-out documents, in their own order; ValueError where there is not one."""
    limit = rows * max_length
    ids: list[int] = []
    sizes: list[float] = []
    for document in corpus.validation:
        if len(ids) >= limit:
            break
        document_ids, document_sizes = with_bytes(document, tokenizer)
        ids += document_ids
        sizes += document_sizes
    tokens = _cut(iter([ids]), max_length, limit, "validation")
    predicted = np.asarray(sizes[: tokens.size]).reshape(tokens.shape)[:, 1:]
    return ValidationRows(tokens, round(predicted.sum()))


class _Piece(NamedTuple):
    """A part of a document, and which of its ends are those of the document."""

    text: str
    begins: bool
    ends: bool


def _pieces(documents: list[str], characters: int) -> Iterator[_Piece]:
    """Documents cut into pieces of about `characters`."""
    for document in documents:
        start = 0
        while start < len(document):
            stop = start + characters
            stop = cut_after(document, stop) if stop < len(document) else stop
            yield _Piece(document[start:stop], start == 0, stop >= len(document))
            start = stop


def _token_stream(pieces: list[_Piece], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    first, last = list(opening(tokenizer)), list(ending(tokenizer))
    remaining = iter(pieces)
    while batch := list(islice(remaining, PIECES_AT_ONCE)):
        encoded = tokenizer([piece.text for piece in batch], add_special_tokens=False)["input_ids"]
        for ids, piece in zip(encoded, batch, strict=True):
            yield (first if piece.begins else []) + ids + (last if piece.ends else [])


def _cut(stream: Iterator[list[int]], max_length: int, wanted: int | None, which: str) -> NDArray[np.int64]:
    """The stream as full rows, (rows, max_length); a last incomplete row is dropped."""
    parts: list[NDArray[np.int64]] = []
    count = 0
    while wanted is None or count < wanted:
        ids = next(stream, None)
        if ids is None:
            break
        parts.append(np.asarray(ids, dtype=np.int64))
        count += len(ids)
    rows = min(count, count if wanted is None else wanted) // max_length
    if rows == 0:
        raise ValueError(
            f"the {which} text has {count} tokens, too little for one row of max_length={max_length}; give more text or a smaller max_length"
        )
    return np.concatenate(parts)[: rows * max_length].reshape(rows, max_length)

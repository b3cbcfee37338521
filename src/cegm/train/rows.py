"""Documents become rows of tokens: plain text is packed into full rows, everything else is left to SFTTrainer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cegm.train.data import Corpus

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
    """Training set for SFTTrainer: columns `input_ids`, `labels`, `row` for plain text; the conversation and `row` otherwise.

    Args:
        corpus: Text.
        tokenizer: Its end-of-text token separates documents.
        max_length: Tokens per row.
        rows: How many rows the run needs; None: all there are.
        seed: Order of the pieces of plain text.

    Raises:
        ValueError: Too little text for one row.
    """
    if corpus.kind != "text":
        return conversations(corpus.train)
    pieces = list(_pieces(corpus.train, 4 * ROWS_PER_PIECE * max_length))
    random.Random(seed).shuffle(pieces)
    wanted = None if rows is None else rows * max_length
    tokens = _cut(_token_stream(pieces, tokenizer), max_length, wanted, "training")
    column = pa.FixedSizeListArray.from_arrays(pa.array(tokens.reshape(-1)), max_length).cast(pa.list_(pa.int64()))
    return datasets.Dataset(pa.table({"input_ids": column, "labels": column, "row": pa.array(range(len(tokens)))}))


def conversations(documents: list[Any]) -> datasets.Dataset:
    """Rows of messages, or of prompts and completions, with their number in column `row`.

    Raises:
        ValueError: A name holds values of different types in different rows, which no table can.
    """
    try:
        return datasets.Dataset.from_list([{**document, "row": index} for index, document in enumerate(documents)])
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"the conversations make no table: {' '.join(str(error).split())}; give every name one type in all rows"
        ) from None


def validation_rows(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, max_length: int, rows: int) -> ValidationRows:
    """The first `rows` full rows of the held-out documents, in their own order.

    Raises:
        ValueError: Too little text for one row.
    """
    limit = rows * max_length
    characters = sum(map(len, corpus.validation))
    ids: list[int] = []
    sizes: list[float] = []
    for document, _ in _pieces(corpus.validation, max(characters, 1)):
        if len(ids) >= limit:
            break
        document_ids, document_sizes = _with_bytes(document, tokenizer)
        ids += document_ids
        sizes += document_sizes
    tokens = _cut(iter([ids]), max_length, limit, "validation")
    predicted = np.asarray(sizes[: tokens.size]).reshape(tokens.shape)[:, 1:]
    return ValidationRows(tokens, round(predicted.sum()))


def _pieces(documents: list[str], characters: int) -> Iterator[tuple[str, bool]]:
    """Documents cut at white space into pieces of at most about `characters`, each with whether its document ends there."""
    for document in documents:
        start = 0
        while start < len(document):
            stop = start + characters
            while stop < len(document) and not document[stop].isspace():
                stop += 1
            yield document[start:stop], stop >= len(document)
            start = stop


def _token_stream(pieces: list[tuple[str, bool]], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    remaining = iter(pieces)
    while batch := list(islice(remaining, PIECES_AT_ONCE)):
        encoded = tokenizer([text for text, _ in batch], add_special_tokens=False)["input_ids"]
        for ids, (_, is_end) in zip(encoded, batch, strict=True):
            yield ids + end if is_end else ids


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


def _with_bytes(document: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[float]]:
    """Tokens of a document, and for each the UTF-8 bytes of text up to its end that no token before it covers."""
    if tokenizer.is_fast:
        encoded: Any = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        ends = np.maximum.accumulate(np.asarray([end for _, end in encoded["offset_mapping"]], dtype=np.int64))
        width = np.frombuffer(document.encode("utf-32-le"), dtype=np.uint32)
        position = np.concatenate([[0], np.cumsum(1 + (width > 0x7F) + (width > 0x7FF) + (width > 0xFFFF))])
        # Tokens that are parts of one character end at the same place and share its bytes.
        distinct, which, sharing = np.unique(ends, return_inverse=True, return_counts=True)
        sizes = (np.diff(position[distinct], prepend=0) / sharing)[which].tolist()
    else:  # no offsets: spread the bytes evenly
        ids = tokenizer(document, add_special_tokens=False)["input_ids"]
        sizes = [len(document.encode()) / max(len(ids), 1)] * len(ids)
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
        sizes.append(len(document.encode()) - sum(sizes))
    return ids, sizes

"""Conversations, and prompts with completions, become rows of tokens, as TRL's SFTTrainer makes them, one each.

What `max_length` takes of them is counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from cegm.lab.train.tokens import opening

IGNORED = -100
"""Label of a token that is only read."""


@dataclass(frozen=True)
class Losses:
    """What was not kept of some rows.

    Attributes:
        rows: All of them.
        dropped: Of which nothing that is learnt fits into `max_length`.
        cut: Of which only a part does.
        tokens: That would be learnt if everything did.
        lost: Of these.
        merged: Whose prompt ends in tokens that are others once the completion follows.
    """

    rows: int
    dropped: int
    cut: int
    tokens: int
    lost: int
    merged: int

    def facts(self) -> dict[str, int]:
        """As files keep it."""
        return asdict(self)

    def told(self, which: str, max_length: int) -> list[str]:
        """Sentences for the user; none where nothing was lost."""
        sentences = []
        if self.dropped:
            sentences.append(
                f"{self.dropped} of {self.rows} {which} rows were dropped, because their prompt alone is as long"
            )
        if self.cut:
            sentences.append(f"{self.cut} of {self.rows} {which} rows were cut (truncated) before their end")
        if self.lost:
            left_out = f"{self.lost} of {self.tokens} tokens to be learnt are left out"
            sentences = [
                f"max_length={max_length}: {'; '.join([*sentences, left_out])}; give a larger max_length to keep them"
            ]
        if self.merged:
            sentences.append(
                f"in {self.merged} of {self.rows} {which} rows the end of the prompt is spelt with other tokens once the completion "
                "follows, and is not read as it will be later; move white space at the end of prompts to the beginning of completions"
            )
        return sentences


@dataclass(frozen=True)
class ConversationRows:
    """Rows and what they lack.

    Attributes:
        rows: Columns `input_ids`, `labels` (`IGNORED` in prompts) and `row`, the number of the document; at most `max_length` tokens each.
        losses: What was dropped and cut.
    """

    rows: datasets.Dataset
    losses: Losses


def conversation_rows(
    documents: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, which: str
) -> ConversationRows:
    """One row per document of which something to learn is left, cut at `max_length` tokens.

    ValueError where nothing is left of any, or one does not fit the chat template.
    """
    ids, labels, ends, numbers = array("i"), array("i"), array("i", [0]), array("q")
    tokens = lost = cut = merged = 0
    first = opening(tokenizer)
    for number, document in enumerate(documents):
        row, read, is_merged = _tokens(document, tokenizer, first, f"{which} row {number}")
        kept = row[:max_length]
        learnt, left = len(row) - read, max(len(kept) - read, 0)
        tokens += learnt
        lost += learnt - left
        merged += is_merged
        if left == 0 or len(kept) < 2:
            continue
        cut += left < learnt
        ids.extend(kept)
        labels.extend([IGNORED] * read + kept[read:])
        ends.append(len(ids))
        numbers.append(number)
    if not numbers:
        raise ValueError(_nothing_left(len(documents), which, max_length))
    columns = {"input_ids": _lists(ids, ends), "labels": _lists(labels, ends), "row": pa.array(np.asarray(numbers))}
    return ConversationRows(
        datasets.Dataset(pa.table(columns)),
        Losses(len(documents), len(documents) - len(numbers), cut, tokens, lost, merged),
    )


def _lists(flat: array[int], ends: array[int]) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.asarray(ends)), pa.array(np.asarray(flat)))


def _nothing_left(rows: int, which: str, max_length: int) -> str:
    return (
        f"max_length={max_length} leaves nothing to learn of any of the {rows} {which} rows: their prompts alone are as long; "
        "give a larger max_length"
    )


def _tokens(
    document: dict[str, Any], tokenizer: PreTrainedTokenizerBase, first: tuple[int, ...], where: str
) -> tuple[list[int], int, bool]:
    """Tokens of a row, how many of the first ones are only read, and whether these are not all of the prompt's own."""
    if "messages" in document:
        return _chat(document["messages"], tokenizer, where), 0, False
    prompt, completion = document["prompt"], document["completion"]
    if isinstance(prompt, list):
        asked = _chat(prompt, tokenizer, where, asks=True)
        whole = _chat([*prompt, *completion], tokenizer, where)
    else:
        end = tokenizer.eos_token or ""
        texts = [prompt, prompt + completion.removesuffix(end) + end]
        asked, whole = ([*first, *ids] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])
    same = takewhile(lambda pair: pair[0] == pair[1], zip(asked, whole, strict=False))
    read = sum(1 for _ in same)
    return whole, read, read < len(asked)


def _chat(messages: list[Any], tokenizer: PreTrainedTokenizerBase, where: str, asks: bool = False) -> list[int]:
    """Tokens of messages; with `asks`, up to where the next answer begins."""
    try:
        encoded: Any = tokenizer.apply_chat_template(messages, return_dict=True, add_generation_prompt=asks)
    except Exception as error:  # a template is a program of its own, and may raise what it likes
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{where} does not fit the chat template of the tokenizer: {reason}") from error
    return list(encoded["input_ids"])

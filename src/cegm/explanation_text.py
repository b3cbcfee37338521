"""Texts as tokens, and tokens as words to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def token_rows(
    model: nn.Module, texts: str | Sequence[str] | Tensor, tokenizer: Any, max_length: int | None
) -> tuple[list[Tensor], Any]:
    """Token ids of every text, each of shape (tokens,), and the tokenizer if there is one."""
    if max_length is not None and max_length < 2:
        raise ValueError(f"max_length={max_length} leaves nothing to predict; use at least 2")
    if isinstance(texts, Tensor):
        if texts.ndim != 2 or texts.is_floating_point():
            shape = "x".join(map(str, texts.shape))
            raise ValueError(
                f"token ids must be integers of shape (rows, tokens), not {texts.dtype} of shape ({shape})"
            )
        rows = list(texts)
    else:
        tokenizer = tokenizer or own_tokenizer(model)
        listed = [texts] if isinstance(texts, str) else texts
        rows = [torch.tensor(tokenizer(text)["input_ids"], dtype=torch.long) for text in listed]
    if not rows:
        raise ValueError("there is no text to explain; pass at least one")
    for number, row in enumerate(rows, start=1):
        if len(row) < 2:
            raise ValueError(f"text {number} has {len(row)} token(s), which leaves nothing to predict; use at least 2")
    return [row[:max_length] for row in rows], tokenizer


def own_tokenizer(model: nn.Module) -> Any:
    """The tokenizer of the folder or the name that a model was loaded from."""
    name = getattr(model, "name_or_path", "")
    if not name:
        raise ValueError("the model names no tokenizer; pass tokenizer=..., or token ids in place of text")
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(name)
    except (ImportError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"no tokenizer could be loaded from {name!r} ({reason}); pass tokenizer=...") from error


def token_strings(row: Tensor, tokenizer: Any) -> tuple[str, ...]:
    """The tokens as they read in the text, with the space before a word; ids without a tokenizer."""
    ids = row.tolist()
    if tokenizer is None:
        return tuple(map(str, ids))
    texts = []
    for previous, current in zip([None, *ids], ids, strict=False):
        alone = _decode(tokenizer, [current])
        if previous is not None:  # some tokenizers write the space only between two tokens
            before, both = _decode(tokenizer, [previous]), _decode(tokenizer, [previous, current])
            alone = both[len(before) :] if both.startswith(before) else alone
        # A part of a character has no text of its own.
        texts.append(tokenizer.convert_ids_to_tokens(current) if "\N{REPLACEMENT CHARACTER}" in alone else alone)
    return tuple(texts)


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


# ---------------------------------------------------------------------- forward and backward

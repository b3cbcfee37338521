"""What a tokenizer makes of a document: what it puts in front, and which bytes of the text each token stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase


def opening(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that this tokenizer puts in front of every text, if it does: models trained with it lean on them."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    for place in range(len(whole) - len(plain) + 1) if plain else ():
        if whole[place : place + len(plain)] == plain:
            return tuple(whole[:place])
    # A tokenizer that knows no "a": what begins all texts is known by its role.
    return tuple(whole[:1]) if whole and whole[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id) else ()


def ending(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The token that ends a document, if this tokenizer has one."""
    return () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)


def with_bytes(document: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[float]]:
    """Tokens of a whole document, and for each the UTF-8 bytes of text up to its end that no token before it covers.

    The opening stands for none, the ending for what the last token of the text left over.
    """
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
        ids = list(tokenizer(document, add_special_tokens=False)["input_ids"])
        sizes = [len(document.encode()) / max(len(ids), 1)] * len(ids)
    first, last = opening(tokenizer), ending(tokenizer)
    left_over = [len(document.encode()) - sum(sizes)] * len(last)
    return [*first, *ids, *last], [0.0] * len(first) + sizes + left_over

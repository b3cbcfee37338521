"""Projections that stack several weights in one parameter: where one ends and the next begins.

Boundaries are taken from what stands nearest in the model: an attention's configuration or its own numbers of heads, a
feed-forward's next layer. Where nothing tells them, a projection stays whole, since three divides many a height that is
no three weights. Interleaved layouts (`query_key_value` of GPT-NeoX, Falcon, BLOOM) have no contiguous pieces at all.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any, cast

from torch import nn

from cegm.model_facts import configurations, fact, number
from cegm.sides import sides

QUERY_KEY_VALUE = {"c_attn", "Wqkv", "qkv_proj", "in_proj_weight"}
GATE_UP = {"gate_up_proj", "gate_up"}

QUERY_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KEY_HEADS = ("num_key_value_heads", "n_head_kv", "n_kv_heads", "num_kv_heads", "kv_n_heads", "multi_query_group_num")
HEAD_WIDTHS = ("head_dim", "head_size", "kv_channels")
WRAPPED = 4
"""Modules around a layer in which its neighbours are looked for: its block, and what PEFT puts between."""

INTERLEAVED = ("codegen",)
"""Models whose `qkv_proj` mixes queries, values and keys in blocks; GPTBigCode does so without `multi_query`."""

PER_HEAD = re.compile(r"(head\w*|\b[hH]|\bnh), *3\b|\bh(eads)? (three|qkv|3|d three|d qkv|d 3)\b")
"""How an attention is written that takes query, key and value of one head after those of another: `view(..., heads, 3 * width)`."""

SUBCONFIGS = ("attn_config",)
"""Where DBRX and MPT keep the numbers of their attention."""


def fused_pieces(kind: str, outputs: int, inputs: int, holders: Sequence[nn.Module]) -> tuple[int, ...]:
    """Heights of the weights stacked in one projection.

    Args:
        kind: What the projection is called, the last word of its name.
        outputs: Its rows.
        inputs: Its columns.
        holders: The modules that hold it, the nearest first, without itself.
    """
    pieces: tuple[int, ...] | None = None
    if kind in QUERY_KEY_VALUE:
        facts = list(_facts(holders))
        if not _interleaves(facts):
            pieces = next((found for source in facts if (found := _attention(kind, source, outputs, inputs))), None)
    elif kind in GATE_UP and _halves_go_on(outputs, inputs, holders):
        pieces = (outputs // 2,) * 2
    return pieces or (outputs,)


def _facts(holders: Iterable[nn.Module]) -> Iterable[Any]:
    """What may tell the heads of an attention, the nearest first: configurations, then modules themselves."""
    for holder in holders:
        for config in configurations(holder):
            yield from (fact(config, name) for name in SUBCONFIGS if fact(config, name) is not None)
            yield config
        yield holder


def _interleaves(sources: Sequence[Any]) -> bool:
    """Whether queries, keys and values are mixed; one key for all queries, where it is said, cannot be."""
    shares = {fact(source, "multi_query") for source in sources}
    if shares & {True, False}:
        return True not in shares
    written = (_source(cast(Hashable, type(source))) for source in sources if isinstance(source, nn.Module))
    return any(fact(source, "model_type") in INTERLEAVED for source in sources) or any(map(PER_HEAD.search, written))


@lru_cache
def _source(kind: Hashable) -> str:
    """How a class is written; empty where nothing tells."""
    try:
        return inspect.getsource(kind)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""


def _attention(kind: str, source: Any, outputs: int, inputs: int) -> tuple[int, ...] | None:
    """Heights of queries, keys and values, if `source` knows the heads and these make up all rows."""
    queries = number(source, QUERY_HEADS)
    if queries is None:
        return None
    keys = 1 if fact(source, "multi_query") is True else number(source, KEY_HEADS) or queries
    if (
        kind == "c_attn" and outputs == 2 * inputs and queries == keys
    ):  # GPT-2's cross attention has its queries elsewhere
        return (inputs, inputs) if inputs % queries == 0 else None
    heads = queries + 2 * keys
    width = number(source, HEAD_WIDTHS) or outputs // heads
    return (queries * width, keys * width, keys * width) if width and heads * width == outputs else None


def _halves_go_on(outputs: int, inputs: int, holders: Sequence[nn.Module]) -> bool:
    """Whether the nearest layer that takes all it gives, or half, takes half: gate and up are multiplied with each other."""
    for holder in holders[:WRAPPED]:
        taken = Counter(side[1] for module in holder.modules() if (side := sides(module)) is not None)
        taken[inputs] -= 1  # by itself
        if taken[outputs] > 0 or taken[outputs // 2] > 0:
            return outputs % 2 == 0 and taken[outputs] <= 0
    return False

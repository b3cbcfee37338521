"""Projections that stack several weights in one parameter: where one ends and the next begins.

Boundaries are taken from what stands nearest in the model: an attention's configuration or its own numbers of heads, a
feed-forward's next layer. Where nothing tells them, a projection stays whole, since three divides many a height that is
no three weights. Interleaved layouts (`query_key_value` of GPT-NeoX, Falcon, BLOOM) have no contiguous pieces at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

QUERY_KEY_VALUE = {"c_attn", "Wqkv", "qkv_proj", "in_proj_weight"}
GATE_UP = {"gate_up_proj", "gate_up"}

QUERY_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KEY_HEADS = ("num_key_value_heads", "n_head_kv", "n_kv_heads", "num_kv_heads", "kv_n_heads", "multi_query_group_num")
HEAD_WIDTHS = ("head_dim", "head_size", "kv_channels")
WRAPPED = 4
"""Modules around a layer in which its neighbours are looked for: its block, and what PEFT puts between."""

INTERLEAVED = ("codegen",)
"""Models whose `qkv_proj` mixes queries, values and keys in blocks; GPTBigCode does so without `multi_query`."""

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
        if not any(_interleaves(fact) for fact in facts):
            pieces = next((found for fact in facts if (found := _attention(fact, outputs, inputs))), None)
    elif kind in GATE_UP and _halves_go_on(outputs, holders):
        pieces = (outputs // 2,) * 2
    return pieces or (outputs,)


def _facts(holders: Iterable[nn.Module]) -> Iterable[Any]:
    """What may tell the heads of an attention, the nearest first: configurations, then modules themselves."""
    for holder in holders:
        config = getattr(holder, "config", None)
        if config is not None:
            yield from (getattr(config, name) for name in SUBCONFIGS if getattr(config, name, None) is not None)
            yield config
        yield holder


def _interleaves(fact: Any) -> bool:
    return _value(fact, "model_type") in INTERLEAVED or _value(fact, "multi_query") is False


def _attention(fact: Any, outputs: int, inputs: int) -> tuple[int, ...] | None:
    """Heights of queries, keys and values, if `fact` knows the heads and these make up all rows."""
    queries = _number(fact, QUERY_HEADS)
    if queries is None:
        return None
    keys = 1 if _value(fact, "multi_query") is True else _number(fact, KEY_HEADS) or queries
    if (
        outputs == 2 * inputs and queries == keys and outputs % (2 * queries) == 0
    ):  # GPT-2's cross attention has its queries elsewhere
        return (inputs, inputs)
    heads = queries + 2 * keys
    width = _number(fact, HEAD_WIDTHS) or outputs // heads
    return (queries * width, keys * width, keys * width) if heads * width == outputs else None


def _number(fact: Any, names: Sequence[str]) -> int | None:
    """The first of these attributes that is a whole number above 0."""
    values = (_value(fact, name) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def _value(fact: Any, name: str) -> Any:
    return getattr(fact, name, None)


def _halves_go_on(outputs: int, holders: Sequence[nn.Module]) -> bool:
    """Whether a layer beside this one takes half as many numbers as it gives: gate and up are multiplied with each other."""
    beside = (module for holder in holders[:WRAPPED] for module in holder.modules())
    return outputs % 2 == 0 and any(outputs // 2 == _inputs(module) for module in beside)


def _inputs(module: nn.Module) -> int | None:
    weight, found = getattr(module, "weight", None), getattr(module, "in_features", None)
    if found is None and hasattr(module, "nf") and isinstance(weight, Tensor):  # transformers' Conv1D
        found = weight.shape[0]
    return found if isinstance(found, int) else None

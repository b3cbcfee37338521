"""What a device sends in a step. Collectives are rings: of N devices each sends (N - 1)/N of what has to reach everybody.

A gradient that is all-reduced passes twice: once to be summed, once to be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cegm.lab.plan.weights import Weight


@dataclass(frozen=True)
class Sent:
    """Bytes that the busiest device sends per step; it receives as many.

    Attributes:
        gradients: All-reduced (DDP), or reduced to the shards (FSDP), in float32.
        weights: Gathered for the forward and again for the backward pass (FSDP).
        matrices: Shards of gradients to the owners of whole matrices, and directions back, in float32 (FSDP).
        contexts: All-reduced numerators and masses, in a step that refreshes.
    """

    gradients: float
    weights: float
    matrices: float
    contexts: float


def all_reduce(size: float, devices: int) -> float:
    """Bytes that each device sends so that all hold the sum of `size` bytes."""
    return 2.0 * size * (devices - 1) / devices


def spread(size: float, devices: int) -> float:
    """Bytes that each device sends to gather `size` bytes from shards everywhere, or to reduce them to shards."""
    return size * (devices - 1) / devices


def sent(
    weights: Sequence[Weight],
    parts: Sequence[Sequence[Weight]],
    sharded: bool,
    frozen: int,
    compute_bytes: int,
    micro_batches: int,
) -> Sent:
    """What one method sends.

    Args:
        weights: All trainable ones.
        parts: Matrices that each device owns whole; used only if sharded.
        sharded: FSDP instead of DDP.
        frozen: Entries of weights that are not trained.
        compute_bytes: Of an entry in the passes: 2 in bfloat16, else 4.
        micro_batches: In a step.
    """
    devices = len(parts)
    size = float(sum(w.bytes for w in weights))
    contexts = all_reduce(sum(w.contexts for w in weights), devices)
    if not sharded:
        return Sent(all_reduce(size, devices), 0.0, 0.0, contexts)
    entries = size / 4 + frozen
    matrices = sum(w.bytes for part in parts for w in part)
    busiest = max((sum(w.bytes for w in part) for part in parts), default=0)
    # To owners goes this device's shard of what others own; back goes what it owns, less the shard that stays.
    owners = (matrices - busiest) / devices + spread(busiest, devices)
    return Sent(
        micro_batches * spread(size, devices),
        2 * micro_batches * spread(entries * compute_bytes, devices),
        owners,
        contexts,
    )

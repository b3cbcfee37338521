"""What a device sends in a step, and who owns which matrix where weights are sharded.

Collectives are rings: of N devices each sends (N - 1)/N of what has to reach everybody. A gradient that is all-reduced passes
twice: once to be summed, once to be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cegm.lab.forecast.weights import Weight
from cegm.owners import least_loaded


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
    return 2.0 * spread(size, devices)


def spread(size: float, devices: int) -> float:
    """Bytes that each device sends to gather `size` bytes from shards everywhere, or to reduce them to shards."""
    return size * (devices - 1) / devices


def owned(weights: Sequence[Weight], devices: int) -> list[list[Weight]]:
    """The matrices of each device: the heaviest first, each to the device with the least work so far; none for some of many.

    Each belongs whole to one, because the polar factor of a shard is no shard of the polar factor.
    """
    parts: list[list[Weight]] = [[] for _ in range(devices)]
    loads = [0.0] * devices
    for weight in sorted((w for w in weights if w.pieces), key=lambda w: -w.work):
        parts[least_loaded(loads, weight.work)].append(weight)
    return parts


def sent_by_ddp(weights: Sequence[Weight], devices: int) -> Sent:
    """Where every device holds all weights."""
    gradients, contexts = sum(w.bytes for w in weights), sum(w.contexts for w in weights)
    return Sent(all_reduce(gradients, devices), 0.0, 0.0, all_reduce(contexts, devices))


def sent_by_fsdp(
    weights: Sequence[Weight], parts: Sequence[Sequence[Weight]], gathered: float, micro_batches: int
) -> Sent:
    """Where weights are sharded.

    Args:
        weights: All trainable ones.
        parts: Matrices that each device owns whole.
        gathered: Bytes of all weights, trainable or not, in the precision of the passes.
        micro_batches: In a step.
    """
    devices, sizes = len(parts), [sum(w.bytes for w in part) for part in parts]
    # To owners goes this device's shard of what others own; back goes what it owns, less the shard that stays.
    matrices = (sum(sizes) - max(sizes)) / devices + spread(max(sizes), devices)
    return Sent(
        micro_batches * spread(sum(w.bytes for w in weights), devices),
        2 * micro_batches * spread(gathered, devices),
        matrices,
        all_reduce(sum(w.contexts for w in weights), devices),
    )

"""What data-parallel processes tell each other of contexts and losses."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from cegm.context.layers import EntanglementLayer

BUCKET = 1 << 24
"""Entries of contexts that travel in one message, 64 MiB: few messages, and little memory for them."""


def distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if distributed() else 1


def mean_over_ranks(value: float) -> float:
    """Of a number that every data-parallel process has; not finite if one of them is not."""
    if not distributed():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def rank() -> int:
    """Which of them this one is."""
    return dist.get_rank() if distributed() else 0


def reduce_over_ranks(layers: list[EntanglementLayer]) -> None:
    """Sums numerators and denominators over data-parallel ranks; a layer that only some ranks called counts as zero on the others.

    One that no rank called, because something else uses its weight, stays unseen on all of them.
    """
    if not distributed() or not layers:
        return
    seen = torch.tensor([layer.recorded for layer in layers], device=layers[0].mass_carrier.device)
    counts = seen.int()
    dist.all_reduce(counts)
    bucket: list[Tensor] = []
    for layer, count in zip(layers, counts.tolist(), strict=True):
        for carrier in layer.carriers() if count else ():
            if carrier.grad is None:
                carrier.grad = torch.zeros(carrier.shape, device=carrier.device)
            bucket.append(carrier.grad)
            if sum(each.numel() for each in bucket) >= BUCKET:
                _sum_together(bucket)
                bucket = []
    _sum_together(bucket)


def _sum_together(tensors: list[Tensor]) -> None:
    """Sums each tensor over ranks, all of them in one message."""
    if not tensors:
        return
    message = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(message)
    for tensor, piece in zip(tensors, message.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(piece.view_as(tensor))

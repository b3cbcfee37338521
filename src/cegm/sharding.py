"""Tensors that are cut by rows over ranks (FSDP2's DTensors), and their ways from shards to a whole and back.

Shards may be uneven or empty. Everything here is called by all ranks in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor


class Mesh(NamedTuple):
    """The ranks that hold shards of the same weights, and the place of this one among them."""

    group: dist.ProcessGroup
    ranks: int
    rank: int


class Travelling(NamedTuple):
    """A tensor that is whole on its owner and elsewhere a shard of its first dimension."""

    owner: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    tensor: Tensor | None

    def rows(self, rank: int, ranks: int) -> tuple[int, int]:
        """First and last (exclusive) row of the shard of a rank, as `torch.chunk` cuts: trailing shards may be empty."""
        height = -(-self.shape[0] // ranks)
        return min(rank * height, self.shape[0]), min((rank + 1) * height, self.shape[0])

    def entries(self, rank: int, ranks: int) -> int:
        """Entries of the shard of a rank."""
        first, last = self.rows(rank, ranks)
        return (last - first) * math.prod(self.shape[1:])


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor; told by name, so that a torch without torch.distributed will do."""
    return type(tensor.data).__name__ == "DTensor"


def local(tensor: Tensor) -> Tensor:
    """What of a tensor lies on this rank: its shard, or all of it; shares its memory."""
    return cast(Any, tensor.detach()).to_local() if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, for which all ranks have to ask if it is sharded; it shares memory if it is not."""
    return cast(Tensor, cast(Any, tensor).full_tensor()) if is_sharded(tensor) else tensor


def mesh_of(name: str, parameter: Tensor) -> Mesh:
    """The ranks over which a sharded parameter is spread.

    Raises:
        ValueError: It is cut in any other way than by rows over one dimension of the mesh, as tensor parallelism does.
    """
    sharded = cast(Any, parameter)
    cut = [index for index, placement in enumerate(sharded.placements) if not placement.is_replicate()]
    if (
        len(cut) != 1
        or not sharded.placements[cut[0]].is_shard(0)
        or "Strided" in type(sharded.placements[cut[0]]).__name__
    ):
        raise ValueError(
            f"{name} is placed as {sharded.placements}; CEGM takes rows cut over one mesh dimension, as fully_shard(model) makes them"
        )
    mesh, dimension = sharded.device_mesh, cut[0]
    return Mesh(mesh.get_group(dimension), mesh.size(dimension), mesh.get_local_rank(dimension))


def gather(travelling: Sequence[Travelling], mesh: Mesh) -> list[Tensor | None]:
    """From shards on all ranks to whole tensors on their owners; None where this rank is not the owner."""
    wholes: list[Tensor | None] = [None] * len(travelling)
    for places in _by_dtype(travelling):
        members = [travelling[place] for place in places]
        sent = [[m for m in members if m.owner == rank] for rank in range(mesh.ranks)]
        mine = sent[mesh.rank]
        received = _exchange(
            [cast(Tensor, m.tensor) for each in sent for m in each],
            [sum(m.entries(mesh.rank, mesh.ranks) for m in each) for each in sent],
            [sum(m.entries(rank, mesh.ranks) for m in mine) for rank in range(mesh.ranks)],
            members[0],
            mesh,
        )
        sizes = [m.entries(rank, mesh.ranks) for rank in range(mesh.ranks) for m in mine]
        pieces = received.split(sizes)
        owned = [place for place in places if travelling[place].owner == mesh.rank]
        for index, place in enumerate(owned):
            wholes[place] = torch.cat(pieces[index :: len(mine)]).view(travelling[place].shape)
    return wholes


def scatter(travelling: Sequence[Travelling], mesh: Mesh, device: torch.device) -> list[Tensor]:
    """From whole tensors on their owners to the shards of all ranks, (rows of this rank, ...)."""
    shards: list[Tensor] = [torch.empty(0)] * len(travelling)
    for places in _by_dtype(travelling):
        members = [travelling[place] for place in places]
        mine = [m for m in members if m.owner == mesh.rank]
        sent = [cast(Tensor, m.tensor)[slice(*m.rows(rank, mesh.ranks))] for rank in range(mesh.ranks) for m in mine]
        from_owners = [[m for m in members if m.owner == rank] for rank in range(mesh.ranks)]
        received = _exchange(
            sent,
            [sum(m.entries(rank, mesh.ranks) for m in mine) for rank in range(mesh.ranks)],
            [sum(m.entries(mesh.rank, mesh.ranks) for m in each) for each in from_owners],
            members[0],
            mesh,
            device,
        )
        order = sorted(places, key=lambda place: travelling[place].owner)
        sizes = [travelling[place].entries(mesh.rank, mesh.ranks) for place in order]
        for place, piece in zip(order, received.split(sizes), strict=True):
            first, last = travelling[place].rows(mesh.rank, mesh.ranks)
            shards[place] = piece.view(last - first, *travelling[place].shape[1:])
    return shards


def _by_dtype(travelling: Sequence[Travelling]) -> list[list[int]]:
    """Places of the members of each dtype, which travel in one message."""
    dtypes = dict.fromkeys(each.dtype for each in travelling)
    return [[place for place, each in enumerate(travelling) if each.dtype == dtype] for dtype in dtypes]


def _exchange(
    tensors: list[Tensor],
    sent: list[int],
    received: list[int],
    like: Travelling,
    mesh: Mesh,
    device: torch.device | None = None,
) -> Tensor:
    """All ranks to all ranks: `sent[r]` entries go to rank `r`, `received[r]` come from it."""
    if device is None:
        device = cast(Tensor, like.tensor).device
    message = torch.cat([tensor.reshape(-1) for tensor in tensors]) if tensors else torch.empty(0)
    message = message.to(device=device, dtype=like.dtype)
    answer = torch.empty(sum(received), device=device, dtype=like.dtype)
    dist.all_to_all_single(answer, message, received, sent, group=mesh.group)
    return answer


def shard_like(parameter: Tensor, shard: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A DTensor of any shape whose rows lie as those of a parameter."""
    from torch.distributed.tensor import DTensor

    place = cast(Any, parameter)
    stride = [math.prod(shape[dimension + 1 :]) for dimension in range(len(shape))]
    return DTensor.from_local(
        shard, place.device_mesh, place.placements, run_check=False, shape=torch.Size(shape), stride=tuple(stride)
    )

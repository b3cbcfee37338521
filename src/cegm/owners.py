"""Who owns which whole matrix of a sharded model, and the exchanges with the owners.

Algorithm 1 works on whole matrices; the polar factor of a shard is no shard of the polar factor. So each matrix belongs to
one rank, which alone runs the algorithm on it and keeps its state. In every step all ranks send their shards of the
gradients to the owners, and the owners send the shards of the directions back: two exchanges, each of one entry per
weight. Everything here is called by all ranks in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor

from cegm.assignment import Assignment, Matrix
from cegm.sharding import Mesh, Travelling, gather, is_sharded, local, mesh_of, scatter, shard_like

State = MutableMapping[Tensor, Any]


class Owners:
    """Which rank owns which sharded matrix, and the exchanges with the owners.

    Weights that are whole on every rank (one process, DDP) belong to every rank, and nothing is exchanged for them.

    Args:
        assignments: What is known of each parameter; shared with the optimizer, which adds to it.
    """

    def __init__(self, assignments: Mapping[Tensor, Assignment]) -> None:
        self._assignments = assignments
        self._owner: dict[Tensor, int] = {}
        self._work: list[float] = []
        self._directions: dict[Tensor, Tensor] = {}

    def add(self, parameters: Iterable[Tensor]) -> None:
        """Gives each sharded matrix to the rank with the least work so far, the heaviest first.

        Raises:
            ValueError: One is sharded over other ranks than the first.
        """
        sharded = [p for p in parameters if is_sharded(p)]
        works = {p: sum(work(*matrix.shape) for matrix in self._assignments[p].matrices()) for p in sharded}
        for parameter in sorted(sharded, key=lambda p: -works[p]):
            mesh = mesh_of(self._assignments[parameter].name, parameter)
            if mesh != (self._mesh or mesh):
                raise ValueError(
                    f"{self._assignments[parameter].name} is sharded over other ranks than others; give each mesh an optimizer of its own"
                )
            self._work = self._work or [0.0] * mesh.ranks
            self._owner[parameter] = least_loaded(self._work, works[parameter])

    @property
    def _mesh(self) -> Mesh | None:
        parameter = next(iter(self._owner), None)
        return None if parameter is None else mesh_of(self._assignments[parameter].name, parameter)

    def owns(self, parameter: Tensor) -> bool:
        """Whether this rank runs Algorithm 1 on a weight."""
        mesh = self._mesh
        return parameter not in self._owner or (mesh is not None and self._owner[parameter] == mesh.rank)

    # ------------------------------------------------------------------ a step

    def gradients(self, parameters: Iterable[Tensor]) -> dict[Tensor, Tensor]:
        """Whole gradients of the weights that this rank owns and that have one."""
        return self.wholes({p: p.grad for p in parameters if p.grad is not None})

    def wholes(self, tensors: Mapping[Tensor, Tensor]) -> dict[Tensor, Tensor]:
        """Of tensors that lie as their weights do, the whole ones of the weights that this rank owns."""
        mesh, sharded = self._mesh, [p for p in tensors if p in self._owner]
        if mesh is None or not sharded:
            return dict(tensors)
        travelling = [Travelling(self._owner[p], (*p.shape,), tensors[p].dtype, local(tensors[p])) for p in sharded]
        found = dict(zip(sharded, gather(travelling, mesh), strict=True))
        return {p: whole for p, whole in found.items() if whole is not None}

    def keep(self, direction: Tensor, matrices: Sequence[Matrix]) -> bool:
        """Takes directions, (matrices, outputs, inputs), that have to travel; False if the weights are whole and here."""
        if matrices[0].assignment.parameter not in self._owner:
            return False
        for matrix, each in zip(matrices, direction, strict=True):
            parameter = matrix.assignment.parameter
            if parameter not in self._directions:
                self._directions[parameter] = torch.zeros(  # experts that no token reached have no direction
                    (*parameter.shape,), dtype=_direction_dtype(parameter), device=each.device
                )
            matrix.view(self._directions[parameter]).copy_(each)
        return True

    def deliver(self, parameters: Iterable[Tensor]) -> Iterator[tuple[Matrix, Tensor, Tensor]]:
        """Hands out the directions that were kept: each matrix with this rank's part of its weight and of its direction."""
        mesh, sharded = self._mesh, [p for p in parameters if p in self._owner and p.grad is not None]
        if mesh is None or not sharded:
            return
        travelling = [
            Travelling(self._owner[p], (*p.shape,), _direction_dtype(p), self._directions.pop(p, None)) for p in sharded
        ]
        shards = scatter(travelling, mesh, local(sharded[0]).device)
        for parameter, each, shard in zip(sharded, travelling, shards, strict=True):
            first, _ = each.rows(mesh.rank, mesh.ranks)
            weight = local(parameter)
            for matrix in self._assignments[parameter].matrices():
                direction = matrix.view(shard, first)
                if matrix.assignment.experts == 1 or bool(direction.any()):
                    yield matrix, matrix.view(weight, first), direction

    def total(self, value: float | Tensor) -> float | Tensor:
        """Of a number to which every matrix adds once."""
        mesh = self._mesh
        if mesh is None:
            return value
        total = torch.tensor(float(value), dtype=torch.float64, device=self._device())
        dist.all_reduce(total, group=mesh.group)
        return float(total)

    def tell(self, parameter: Tensor, value: Tensor | None, shape: Sequence[int]) -> Tensor | None:
        """What the owner of a weight knows, on all ranks, float32; None if it knows nothing."""
        mesh = self._mesh
        if mesh is None or parameter not in self._owner:
            return value
        # The last entry says whether there is something.
        message = torch.zeros(math.prod(shape) + 1, device=self._device())
        if value is not None:
            message[:-1], message[-1] = value.flatten(), 1.0
        dist.broadcast(message, dist.get_global_rank(mesh.group, self._owner[parameter]), group=mesh.group)
        return message[:-1].view(*shape) if bool(message[-1]) else None

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error on one owner stops all ranks; without this the others would wait for it."""
        error: Exception | None = None
        try:
            yield
        except (RuntimeError, ValueError) as caught:
            error = caught
        said = [each for each in self.exchange_objects(None if error is None else str(error)) if each is not None]
        if error is not None:
            raise error
        if said:
            raise RuntimeError(f"another rank stopped: {said[0]}")

    def exchange_objects(self, mine: Any) -> list[Any]:
        """One small object of every rank."""
        mesh = self._mesh
        if mesh is None:
            return [mine]
        everyone: list[Any] = [None] * mesh.ranks
        dist.all_gather_object(everyone, mine, group=mesh.group)
        return everyone

    def _device(self) -> torch.device:
        return local(next(iter(self._owner))).device

    # ------------------------------------------------------------------ checkpoints

    def shared(self, state: State) -> State:
        """The state as every rank can save it: what owners keep whole becomes DTensors that are cut by rows.

        `torch.distributed.checkpoint` saves and loads these, and makes them whole with `full_state_dict=True`.
        """
        mesh = self._mesh
        if mesh is None:
            return state
        index = {p: number for number, p in enumerate(self._owner)}
        mine = {index[p]: _described(state.get(p, {})) for p in self._owner if self.owns(p)}
        known = {number: entry for each in self.exchange_objects(mine) for number, entry in each.items()}
        keys = [(p, key, entry) for p in self._owner for key, entry in known[index[p]].items()]
        far = [(p, key, entry) for p, key, entry in keys if isinstance(entry, _Described)]
        travelling = [
            Travelling(self._owner[p], entry.shape, entry.dtype, state[p][key] if self.owns(p) else None)
            for p, key, entry in far
        ]
        shards = scatter(travelling, mesh, self._device())
        # In the order of the model, because ranks have come to their own states in different orders.
        saved = [p for p in self._assignments if (known[index[p]] if p in self._owner else p in state)]
        result: State = {p: {} if p in self._owner else state[p] for p in saved}
        for p, key, entry in keys:
            result[p][key] = entry
        for (p, key, entry), shard in zip(far, shards, strict=True):
            result[p][key] = shard_like(p, shard, entry.shape)
        return result

    def take(self, state: State) -> None:
        """Takes a loaded state, sharded in any way or whole: matrices' goes to its owner, that of other weights stays in shards."""
        for parameter, own in list(state.items()):
            for key, value in list(own.items()):
                if not isinstance(value, Tensor):
                    continue
                if parameter in self._owner and is_sharded(value):
                    own[key] = cast(Any, value).full_tensor()
                elif parameter not in self._owner and is_sharded(parameter) and not is_sharded(value) and value.ndim:
                    own[key] = cut_like(self._assignments[parameter].name, parameter, value)
            if parameter in self._owner and not self.owns(parameter):
                own.clear()


class _Described(NamedTuple):
    """A tensor of which only the owner has the entries."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def _described(own: Mapping[str, Any]) -> dict[str, Any]:
    """What other ranks have to know of one weight's state; plain numbers and 0-D tensors are told themselves."""
    far = {key for key, value in own.items() if isinstance(value, Tensor) and value.ndim}
    near = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in own.items() if key not in far}
    return {**near, **{key: _Described((*own[key].shape,), own[key].dtype) for key in own if key in far}}


def cut_like(name: str, parameter: Tensor, whole: Tensor) -> Tensor:
    """A whole tensor as a DTensor whose rows lie as those of a parameter."""
    mesh = mesh_of(name, parameter)
    shape = (*whole.shape,)
    first, last = Travelling(0, shape, whole.dtype, None).rows(mesh.rank, mesh.ranks)
    return shard_like(parameter, whole[first:last].clone(), shape)


def work(outputs: int, inputs: int) -> float:
    """Products of one polar factor, up to a constant."""
    return float(outputs) * inputs * min(outputs, inputs)


def _direction_dtype(parameter: Tensor) -> torch.dtype:
    """In which no direction loses anything."""
    return torch.promote_types(parameter.dtype, torch.float32)


def least_loaded(loads: list[float], more: float) -> int:
    """The rank with the least work so far, the first of equals, which then has so much more."""
    rank = loads.index(min(loads))
    loads[rank] += more
    return rank

"""What an optimizer knows of a parameter: how it is updated and why, which matrices are in it, where it meets its contexts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cegm.columns import aligned
from cegm.context.taps import Place

Role = Literal["matrix", "adamw"]
ROLES: tuple[str, ...] = get_args(Role)

EXPECTED_OF_ADAMW = ("embedding", "output head", "vector")
"""Reasons that leave nobody wondering, however many weights they concern."""

UNTOLD = "two dimensions, no model"
"""Reason of a matrix that is one by its dimensions alone."""

LARGE = 0.02
"""Share of all weights from which the summary names what AdamW updates for another reason."""


@dataclass(frozen=True)
class Assignment:
    """How one parameter is updated, and why.

    Attributes:
        name: Name of the parameter in the model, or `group 0, parameter 3` when there is no model.
        parameter: The tensor.
        role: `matrix` (Algorithm 1) or `adamw`.
        reason: What decided the role, in words a user can check.
        transposed: A matrix is stored (inputs, outputs), as in transformers' `Conv1D`.
        pieces: Heights of the weights stacked in one matrix, in order; one entry unless it is fused.
        places: Where it meets its contexts; none where they are out of reach.
        experts: Matrices stacked in it, (experts, outputs, inputs); 1 for all but the experts of a mixture.
        decays: Whether weight decay is for it: not for vectors, whatever their shape, and what a model marks itself.
    """

    name: str
    parameter: Tensor
    role: Role
    reason: str
    transposed: bool = False
    pieces: tuple[int, ...] = ()
    places: tuple[Place, ...] = field(default=(), repr=False, compare=False)
    experts: int = 1
    decays: bool = True

    @property
    def modules(self) -> list[nn.Module]:
        """Modules whose forward pass uses it, so that contexts can be gathered there."""
        return [place.module for place in self.places]

    @property
    def height(self) -> int:
        """Outputs of one of its matrices."""
        return sum(self.pieces)

    @property
    def inputs(self) -> int:
        """Inputs of one of its matrices."""
        stored = self.parameter.shape[1:] if self.experts > 1 else self.parameter.shape
        return stored[0] if self.transposed else math.prod(stored[1:])

    def matrices(self) -> list[Matrix]:
        """The weights of Algorithm 1 inside the parameter: one, or one per fused piece and expert."""
        edges = list(accumulate(self.pieces, initial=0))
        return [Matrix(self, expert, *edge) for expert in range(self.experts) for edge in pairwise(edges)]


@dataclass(frozen=True)
class Matrix:
    """One weight `W` (outputs x inputs): rows `start:stop` of one of the matrices in a parameter, whichever way that is stored."""

    assignment: Assignment
    expert: int
    start: int
    stop: int

    def view(self, tensor: Tensor, first: int = 0) -> Tensor:
        """The part of `tensor` (the parameter, its gradient or its momentum) that belongs to this weight, (outputs, inputs).

        A convolution's kernel (outputs, channels, ...) is seen with one row per output; its inputs are patches. Of a
        shard, whose first row (or expert) is number `first` of the parameter, it is what the shard has of this weight.
        """
        if self.assignment.experts > 1:
            number = self.expert - first
            stacked = tensor[max(number, 0) : max(number + 1, 0)]  # (1 or 0, outputs, inputs), as stored
            return (stacked.mT if self.assignment.transposed else stacked).flatten(0, 1)[self.start : self.stop]
        if self.assignment.transposed:
            rows, first = tensor.mT, 0  # a shard has some inputs of all outputs
        else:
            rows = tensor.flatten(1)
        start, stop = max(self.start - first, 0), max(self.stop - first, 0)
        return rows if (start, stop) == (0, rows.shape[0]) else rows[start:stop]

    def rows(self, outputs: Tensor) -> Tensor:
        """Of something with an entry for every output of every matrix in the parameter, the entries of this weight's."""
        first = self.expert * self.assignment.height
        return outputs[first + self.start : first + self.stop]

    def demand_blocks(self, statistics: Tensor) -> Tensor:
        """Of block-diagonal statistics over all outputs of the parameter, (heads, width, width), those of this weight."""
        width, first = statistics.shape[-1], self.expert * self.assignment.height
        return statistics[(first + self.start) // width : (first + self.stop) // width]

    def context_blocks(self, statistics: Tensor) -> Tensor:
        """Of block-diagonal statistics over the inputs of all its matrices, those of the matrix that this weight is part of."""
        return of_expert(statistics, self.expert, self.assignment.experts)

    @property
    def number(self) -> int:
        """Its place among the matrices of the parameter."""
        edges = list(accumulate(self.assignment.pieces, initial=0))
        return self.expert * len(self.assignment.pieces) + edges.index(self.start)

    @property
    def name(self) -> str:
        """Name of the layer, with number of the expert and rows of the piece where there are several."""
        places = [str(self.expert)] if self.assignment.experts > 1 else []
        places += [f"{self.start}:{self.stop}"] if len(self.assignment.pieces) > 1 else []
        name = self.assignment.name.removesuffix(".weight")
        return f"{name}[{', '.join(places)}]" if places else name

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return self.stop - self.start, self.assignment.inputs


def stack(matrices: list[Matrix], tensors: Mapping[Tensor, Tensor]) -> Tensor:
    """Gradients or weights of equal shape, given by parameter, as one tensor, (matrices, outputs, inputs)."""
    return torch.stack([m.view(tensors[m.assignment.parameter]) for m in matrices])


def of_expert(statistics: Tensor, expert: int, experts: int) -> Tensor:
    """Of statistics that stand one expert after the other in the first dimension, those of one."""
    each = len(statistics) // experts
    return statistics[expert * each : (expert + 1) * each]


def block_of(name: str) -> str:
    """Name of the transformer block that a parameter belongs to, up to its first number; its module's when there is none.

    `model.layers.3.self_attn.q_proj.weight` belongs to `model.layers.3`.
    """
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1] if numbers else parts[:-1])


def is_broadcast(shape: Sequence[int]) -> bool:
    """Whether a tensor has a dimension of one, along which it is repeated or holds a single row: a vector in another shape."""
    return len(shape) < 2 or 1 in shape


def assign_without_model(name: str, parameter: Tensor) -> Assignment:
    """Falls back to dimensions when no model tells the role: matrices of two dimensions, as `torch.optim.Muon` takes them."""
    if is_broadcast(parameter.shape):
        return Assignment(name, parameter, "adamw", "vector", decays=False)
    if parameter.ndim == 2:
        return Assignment(name, parameter, "matrix", UNTOLD, False, (parameter.shape[0],))
    return Assignment(name, parameter, "adamw", "not a matrix, no model")


def table(assignments: Sequence[Assignment]) -> str:
    """One line per kind of parameter: role, reason, how many, weights, and the names with their numbers folded to `*`."""
    kinds: dict[tuple[str, str, str], list[Assignment]] = defaultdict(list)
    for a in assignments:
        folded = ".".join("*" if part.isdigit() else part for part in a.name.split("."))
        kinds[a.role, a.reason, folded].append(a)
    rows = [("update", "why", "tensors", "weights", "shape", "name")]
    for (role, reason, folded), members in kinds.items():
        shapes = Counter("x".join(map(str, m.parameter.shape)) for m in members)
        rows.append((role, reason, str(len(members)), f"{_weights(members):,}", " ".join(shapes), folded))
    lines = aligned(rows, {0, 1, 4, 5})
    lines.insert(1, "-" * len(lines[0]))
    by_role = {role: _weights([a for a in assignments if a.role == role]) for role in ROLES}
    lines.append(f"total: {by_role['matrix']:,} weights by Algorithm 1, {by_role['adamw']:,} by AdamW{_large(kinds)}")
    return "\n".join(lines)


def _weights(members: Sequence[Assignment]) -> int:
    return sum(member.parameter.numel() for member in members)


def _large(kinds: dict[tuple[str, str, str], list[Assignment]]) -> str:
    """What AdamW updates though it is large and neither embedding nor head."""
    total = sum(map(_weights, kinds.values()))
    large = [
        f"{folded} ({_weights(members):,}, {reason})"
        for (role, reason, folded), members in kinds.items()
        if role == "adamw" and reason not in EXPECTED_OF_ADAMW and _weights(members) >= LARGE * total
    ]
    return f", among them {'; '.join(large)}: group_patterns can make them matrices" if large else ""

"""Which parameter is updated how: matrices that meet contexts by Algorithm 1, everything else by AdamW.

Grouping goes by *role*, not by number of dimensions: an embedding is a matrix too, but its inputs are one-hot. Every
trainable parameter is assigned exactly once, the assignment is printed as a table, and ordered name patterns override
it.
"""

from __future__ import annotations

import fnmatch
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any, Literal, get_args

from torch import Tensor, nn

from cegm.aligned import aligned

Role = Literal["matrix", "adamw"]
ROLES: tuple[str, ...] = get_args(Role)

HEAD_NAMES = {"lm_head", "embed_out", "output_projection", "classifier", "score", "qa_outputs"}
ROUTER_NAMES = {"router", "gate", "shared_expert_gate", "wg"}
"""Last components of module names. `gate_proj` of a gated MLP is not among them; `mlp.gate` of a mixture of experts is."""

FUSED_EQUALLY = {"c_attn": 3, "Wqkv": 3, "gate_up_proj": 2, "gate_up": 2}
"""Projections that stack several weights of equal height in one parameter."""


@dataclass(frozen=True)
class Assignment:
    """How one parameter is updated, and why.

    Attributes:
        name: Name of the parameter in the model, or `group 0, parameter 3` when there is no model.
        parameter: The tensor.
        role: `matrix` (Algorithm 1) or `adamw`.
        reason: What decided the role, in words a user can check.
        transposed: The parameter is stored (inputs, outputs), as in transformers' `Conv1D`.
        pieces: Heights of the weights stacked in it, in order; one entry unless it is fused.
        modules: Modules whose forward pass uses it, so that contexts can be gathered there.
    """

    name: str
    parameter: Tensor
    role: Role
    reason: str
    transposed: bool = False
    pieces: tuple[int, ...] = ()
    modules: list[nn.Module] = field(default_factory=list, repr=False, compare=False)

    def matrices(self) -> list[Matrix]:
        """The weights of Algorithm 1 inside the parameter: one, or one per fused piece."""
        edges = list(accumulate(self.pieces, initial=0))
        return [Matrix(self, start, stop) for start, stop in pairwise(edges)]


@dataclass(frozen=True)
class Matrix:
    """One weight `W` (outputs x inputs): rows `start:stop` of a parameter, whichever way that is stored."""

    assignment: Assignment
    start: int
    stop: int

    def view(self, tensor: Tensor, first: int = 0) -> Tensor:
        """The part of `tensor` (the parameter, its gradient or its momentum) that belongs to this weight, (outputs, inputs).

        A convolution's kernel (outputs, channels, ...) is seen with one row per output; its inputs are patches. Of a
        shard, whose first row is row `first` of the parameter, it is what the shard has of this weight.
        """
        if self.assignment.transposed:
            rows, first = tensor.mT, 0  # a shard has some inputs of all outputs
        else:
            rows = tensor.flatten(1)
        start, stop = max(self.start - first, 0), max(self.stop - first, 0)
        return rows if (start, stop) == (0, rows.shape[0]) else rows[start:stop]

    def blocks(self, statistics: Tensor) -> Tensor:
        """Of block-diagonal statistics over all outputs of the parameter, (heads, width, width), those of this weight."""
        width = statistics.shape[-1]
        return statistics[self.start // width : self.stop // width]

    @property
    def name(self) -> str:
        """Name of the layer, with the rows of the piece when it is fused."""
        name = self.assignment.name.removesuffix(".weight")
        return name if len(self.assignment.pieces) == 1 else f"{name}[{self.start}:{self.stop}]"

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        stored = self.assignment.parameter.shape
        return self.stop - self.start, stored[0] if self.assignment.transposed else math.prod(stored[1:])


def assign(model: nn.Module, patterns: Sequence[tuple[str, Role]] = ()) -> list[Assignment]:
    """Assigns every trainable parameter of `model`, in the model's own order.

    Args:
        model: Any module. Weights of `nn.Linear`, `nn.Conv1d`, `nn.Conv2d` and transformers' `Conv1D` become matrices
            unless they are the output head, tied to an embedding, a router, or have a single row or column. Recurrent
            cells like `nn.LSTM` and `nn.GRU` call fused kernels that no hook sees; they are left to AdamW and say so.
        patterns: Ordered (shell pattern over parameter names, role) pairs; the first that matches wins over the
        automatic role.

    Raises:
        ValueError: A pattern matches no parameter, names an unknown role, or asks for a matrix where no linear layer
        meets the parameter.
    """
    holders = _holders(model)
    automatic = [_assign_one(model, name, parameter, holders[parameter]) for name, parameter in _trainable(model)]
    return [_override(assignment, patterns) for assignment in _checked(automatic, patterns)]


def _trainable(model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _holders(model: nn.Module) -> dict[Tensor, list[tuple[str, str, nn.Module]]]:
    """For each parameter the (module name, attribute, module) triples that hold it; several when it is tied."""
    holders: dict[Tensor, list[tuple[str, str, nn.Module]]] = defaultdict(list)
    for module_name, module in model.named_modules():
        for attribute, parameter in module.named_parameters(recurse=False):
            holders[parameter].append((module_name, attribute, module))
    return holders


def is_transposed(module: nn.Module) -> bool:
    """Whether `module` is transformers' `Conv1D`, a linear layer that stores (inputs, outputs); told by name, so that only torch is needed."""
    return hasattr(module, "nf") and any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)


def _assign_one(
    model: nn.Module, name: str, parameter: nn.Parameter, holders: list[tuple[str, str, nn.Module]]
) -> Assignment:
    modules = [module for _, attribute, module in holders if attribute == "weight"]
    role_names = {module_name.rpartition(".")[2] for module_name, _, _ in holders}
    output_embeddings: Any = getattr(model, "get_output_embeddings", None)
    head = output_embeddings() if output_embeddings is not None else None
    reason = ""
    convolution = bool(modules) and all(isinstance(m, (nn.Conv1d, nn.Conv2d)) for m in modules)
    shape = (parameter.shape[0], math.prod(parameter.shape[1:])) if convolution else parameter.shape
    if parameter.ndim < 2 or 1 in shape:
        reason = "vector"
    elif any(isinstance(module, nn.Embedding) for module in modules):
        reason = "embedding"
    elif (head is not None and head in modules) or role_names & HEAD_NAMES:
        reason = "output head"
    elif role_names & ROUTER_NAMES:
        reason = "router"
    if convolution:
        return _assign_convolution(name, parameter, modules, reason)
    linear = (
        parameter.ndim == 2 and bool(modules) and all(isinstance(m, nn.Linear) or is_transposed(m) for m in modules)
    )
    if not linear:
        return Assignment(name, parameter, "adamw", reason or _why_unseen(holders[0][2]))
    transposed = is_transposed(modules[0])
    outputs, inputs = reversed(parameter.shape) if transposed else parameter.shape
    pieces = fused_pieces(holders[0][0], outputs, inputs, model)
    role: Role = "adamw" if reason else "matrix"
    reason = reason or ("linear layer" if len(pieces) == 1 else f"linear layer, {len(pieces)} fused")
    return Assignment(name, parameter, role, reason, transposed, pieces, modules)


def _assign_convolution(name: str, parameter: nn.Parameter, modules: list[nn.Module], reason: str) -> Assignment:
    if not reason and any(getattr(module, "groups", 1) > 1 for module in modules):
        reason = "grouped convolution"
    if not reason and not parameter.is_contiguous():
        reason = "convolution in channels_last memory"  # its rows are no view of the parameter
    if reason:
        return Assignment(name, parameter, "adamw", reason)
    return Assignment(name, parameter, "matrix", "convolution", False, (parameter.shape[0],), modules)


def _why_unseen(holder: nn.Module) -> str:
    kind = type(holder).__name__
    return f"no hook sees it ({kind})" if isinstance(holder, nn.RNNBase) else f"no linear layer ({kind})"


def block_of(name: str) -> str:
    """Name of the transformer block that a parameter belongs to, up to its first number; its module's when there is none.

    `model.layers.3.self_attn.q_proj.weight` belongs to `model.layers.3`.
    """
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1] if numbers else parts[:-1])


def fused_pieces(module_name: str, outputs: int, inputs: int, model: nn.Module) -> tuple[int, ...]:
    """Heights of the weights stacked in one projection.

    Interleaved layouts (`query_key_value` of GPT-NeoX, Falcon, BLOOM) have no contiguous pieces and stay whole.
    """
    kind = module_name.rpartition(".")[2]
    count = FUSED_EQUALLY.get(kind, 1)
    if kind == "c_attn" and outputs == 2 * inputs:  # GPT-2's cross attention stacks keys and values only
        count = 2
    if kind == "qkv_proj":
        config = getattr(model, "config", None)
        queries = getattr(config, "num_attention_heads", 0)
        keys = getattr(config, "num_key_value_heads", None) or queries
        if queries and outputs % (queries + 2 * keys) == 0:
            width = outputs // (queries + 2 * keys)
            return queries * width, keys * width, keys * width
        count = 3
    return (outputs // count,) * count if outputs % count == 0 else (outputs,)


def _checked(assignments: list[Assignment], patterns: Sequence[tuple[str, Role]]) -> list[Assignment]:
    for pattern, role in patterns:
        if role not in ROLES:
            raise ValueError(f"group pattern {pattern!r} has role {role!r}; use one of {', '.join(ROLES)}")
        if not any(fnmatch.fnmatchcase(a.name, pattern) for a in assignments):
            raise ValueError(
                f"group pattern {pattern!r} matches no trainable parameter; print optimizer.summary() for the names"
            )
    return assignments


def _override(assignment: Assignment, patterns: Sequence[tuple[str, Role]]) -> Assignment:
    role = next((role for pattern, role in patterns if fnmatch.fnmatchcase(assignment.name, pattern)), assignment.role)
    if role == assignment.role:
        return assignment
    if role == "matrix" and assignment.parameter.ndim != 2 and not assignment.pieces:
        shape = "x".join(map(str, assignment.parameter.shape))
        raise ValueError(f"{assignment.name} ({shape}) is no matrix; take it out of the 'matrix' group patterns")
    pieces = assignment.pieces or tuple(assignment.parameter.shape[:1])
    return replace(assignment, role=role, reason="pattern", pieces=pieces)


def assign_without_model(name: str, parameter: Tensor) -> Assignment:
    """Falls back to dimensions when no model tells the role: matrices of two dimensions, as `torch.optim.Muon` takes them."""
    if parameter.ndim == 2 and 1 not in parameter.shape:
        return Assignment(name, parameter, "matrix", "two dimensions, no model", False, (parameter.shape[0],))
    return Assignment(name, parameter, "adamw", "vector" if parameter.ndim < 2 else "not a matrix, no model")


def table(assignments: Sequence[Assignment]) -> str:
    """One line per kind of parameter: role, reason, how many, weights, and the names with their numbers folded to `*`."""
    kinds: dict[tuple[str, str, str], list[Assignment]] = defaultdict(list)
    for a in assignments:
        folded = ".".join("*" if part.isdigit() else part for part in a.name.split("."))
        kinds[a.role, a.reason, folded].append(a)
    rows = [("update", "why", "tensors", "weights", "shape", "name")]
    for (role, reason, folded), members in kinds.items():
        shapes = Counter("x".join(map(str, m.parameter.shape)) for m in members)
        weights = sum(m.parameter.numel() for m in members)
        rows.append((role, reason, str(len(members)), f"{weights:,}", " ".join(shapes), folded))
    total = Counter[str]()
    for a in assignments:
        total[a.role] += a.parameter.numel()
    lines = aligned(rows, {0, 1, 4, 5})
    lines.insert(1, "-" * len(lines[0]))
    lines.append(f"total: {total['matrix']:,} weights by Algorithm 1, {total['adamw']:,} by AdamW")
    return "\n".join(lines)

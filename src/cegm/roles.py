"""Which parameter is updated how: matrices that meet contexts by Algorithm 1, everything else by AdamW.

Grouping goes by what a weight *does*, not by its number of dimensions or its name: an embedding is a matrix too, but its
inputs are one-hot; an output head has nothing behind it. Every trainable parameter is assigned exactly once, the
assignment is printed as a table, and ordered name patterns override it.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Container, Sequence
from dataclasses import replace

from torch import Tensor, nn

from cegm.assignment import ROLES, Assignment, Role, is_broadcast
from cegm.context.taps import Place, is_transposed
from cegm.fused import fused_pieces
from cegm.heads import Heads
from cegm.mixtures import Mixtures, flat_experts
from cegm.survey import Holder, Survey

WITHOUT_CONTEXTS = "contexts out of reach"

LAST = "last layer"
"""Reason of what may be an output head whose number of classes stands nowhere; the summary names it when it is large."""


class Structure:
    """What a model's modules tell about its weights."""

    def __init__(self, model: nn.Module) -> None:
        self.survey = Survey(model)
        self.heads = Heads(self.survey)
        self.mixtures = Mixtures(self.survey)


def assign(
    model: nn.Module, patterns: Sequence[tuple[str, Role]] = (), handed: Container[Tensor] = ()
) -> list[Assignment]:
    """Assigns every trainable parameter of `model`, in the model's own order.

    Args:
        model: Any module. Weights of `nn.Linear`, `nn.Conv1d`, `nn.Conv2d`, transformers' `Conv1D`, the projections of
            `nn.MultiheadAttention` and experts stacked in one parameter become matrices unless they are an output head,
            tied to an embedding, a router, or have a single row or column. Recurrent cells like `nn.LSTM` and `nn.GRU`
            call fused kernels that no hook sees; they are left to AdamW and say so.
        patterns: Ordered (shell pattern over parameter names, role) pairs; the first that matches wins over the
            automatic role.
        handed: Parameters to be assigned though they are frozen now.

    Raises:
        ValueError: A pattern matches no parameter, names an unknown role, or asks for a matrix where there is none.
    """
    structure = Structure(model)
    trainable = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or parameter in handed
    ]
    automatic = [_assign_one(structure, name, parameter) for name, parameter in trainable]
    return [_override(assignment, patterns, structure) for assignment in _checked(automatic, patterns)]


def _assign_one(structure: Structure, name: str, parameter: nn.Parameter) -> Assignment:
    holders = structure.survey.holders[parameter]
    assignment = (
        _empty(name, parameter)
        or _linear(structure, name, parameter, holders)
        or _convolution(structure, name, parameter, holders)
        or _attention(name, parameter, holders)
        or _experts(structure, name, parameter, holders)
        or Assignment(name, parameter, "adamw", _why_no_matrix(structure, parameter, holders))
    )
    return replace(assignment, decays=_decays(structure, assignment, holders))


def _empty(name: str, parameter: nn.Parameter) -> Assignment | None:
    """A layer without inputs or outputs."""
    return None if parameter.numel() else Assignment(name, parameter, "adamw", "vector")


def _why_no_matrix(structure: Structure, parameter: Tensor, holders: Sequence[Holder]) -> str:
    holder = holders[0]
    if any(isinstance(each.module, nn.Embedding) for each in holders):
        return "embedding"
    if structure.mixtures.are_experts(holder, parameter):
        return "the only expert"
    if is_broadcast(parameter.shape):
        return "vector"
    if parameter.ndim == 2 and holder.multiplies and structure.mixtures.is_router(holder, *parameter.shape):
        return "router"
    kind = type(holder.module).__name__
    return f"no hook sees it ({kind})" if isinstance(holder.module, nn.RNNBase) else f"no linear layer ({kind})"


# ---------------------------------------------------------------------- kinds of weights


def _linear(structure: Structure, name: str, parameter: nn.Parameter, holders: Sequence[Holder]) -> Assignment | None:
    """The weight of linear layers."""
    survey, layers = structure.survey, [holder for holder in holders if holder.attribute == "weight"]
    if parameter.ndim != 2 or not layers:
        return None
    if any(isinstance(layer.module, nn.Embedding) for layer in layers):
        return Assignment(name, parameter, "adamw", "embedding")
    if not all(isinstance(layer.module, nn.Linear) or is_transposed(layer.module) for layer in layers):
        return None
    transposed = is_transposed(layers[0].module)
    outputs, inputs = reversed(parameter.shape) if transposed else parameter.shape
    pieces = fused_pieces(layers[0].word, outputs, inputs, list(survey.ancestors(layers[0].module)))
    places = tuple(Place(layer.module, "weight") for layer in layers if not survey.is_inside_attention(layer))
    reason = _why_no_body(structure, layers, outputs, inputs)
    if reason:
        return Assignment(name, parameter, "adamw", reason, transposed, pieces, places)
    return Assignment(name, parameter, "matrix", _described("linear layer", pieces, places), transposed, pieces, places)


def _why_no_body(structure: Structure, layers: Sequence[Holder], outputs: int, inputs: int) -> str:
    """Why a layer is no matrix of the model's body; empty if it is."""
    heads = structure.heads
    if 1 in (outputs, inputs):
        return "vector"
    if any(heads.is_named_head(layer, outputs) for layer in layers):
        return "output head"
    if any(structure.mixtures.is_router(layer, outputs, inputs) for layer in layers):
        return "router"
    if any(heads.is_head(layer, outputs) or heads.is_unmatched_head(layer, outputs) for layer in layers):
        return "output head"
    if any(heads.takes_words(layer, outputs, inputs) for layer in layers):
        return "embedding"
    return LAST if any(heads.may_be_head(layer, outputs) for layer in layers) else ""


def _convolution(
    structure: Structure, name: str, parameter: nn.Parameter, holders: Sequence[Holder]
) -> Assignment | None:
    """The kernel of convolutions over signals and images."""
    layers = [holder for holder in holders if holder.attribute == "weight"]
    if parameter.ndim < 3 or not layers or not all(isinstance(h.module, (nn.Conv1d, nn.Conv2d)) for h in layers):
        return None
    reason = ""
    if 1 in (parameter.shape[0], math.prod(parameter.shape[1:])):
        reason = "vector"
    elif any(getattr(layer.module, "groups", 1) > 1 for layer in layers):
        reason = "grouped convolution"
    elif not parameter.is_contiguous():
        reason = "convolution in channels_last memory"  # its rows are no view of the parameter
    else:
        reason = _why_no_body(structure, layers, parameter.shape[0], math.prod(parameter.shape[1:]))
    if reason:
        return Assignment(name, parameter, "adamw", reason)
    places = tuple(Place(layer.module, "weight") for layer in layers)
    return Assignment(name, parameter, "matrix", "convolution", False, (parameter.shape[0],), places)


def _attention(name: str, parameter: nn.Parameter, holders: Sequence[Holder]) -> Assignment | None:
    """The projections that `nn.MultiheadAttention` keeps in itself and hands to a function that shows nothing of its inside."""
    module, attribute = holders[0].module, holders[0].attribute
    if not (isinstance(module, nn.MultiheadAttention) and attribute.endswith("proj_weight")) or 1 in parameter.shape:
        return None
    outputs, inputs = parameter.shape
    pieces = fused_pieces(attribute, outputs, inputs, [module])
    return Assignment(name, parameter, "matrix", _described("linear layer", pieces, ()), False, pieces)


def _experts(structure: Structure, name: str, parameter: nn.Parameter, holders: Sequence[Holder]) -> Assignment | None:
    """A batch of matrices, one per expert of a mixture: in a dimension of its own, or one below the other."""
    mixtures, holder = structure.mixtures, holders[0]
    flat = flat_experts(holder, parameter)
    if flat:
        pieces = (len(parameter) // flat,) * flat
        return Assignment(name, parameter, "matrix", _described("experts", pieces, ()), False, pieces)
    if not parameter.ndim or len(parameter) == 1 or not mixtures.are_experts(holder, parameter):
        return None
    transposed = mixtures.stores_inputs_first(holder, parameter)
    outputs = parameter.shape[2] if transposed else parameter.shape[1]
    is_double = mixtures.stacks_gate_and_up(holder, parameter, outputs)
    pieces = (outputs // 2,) * 2 if is_double else (outputs,)
    places = (structure.survey.place(holder),)
    kind = _described("experts", pieces, places)
    return Assignment(name, parameter, "matrix", kind, transposed, pieces, places, experts=parameter.shape[0])


def _described(kind: str, pieces: Sequence[int], places: Sequence[Place]) -> str:
    words = [kind, *([f"{len(pieces)} fused"] if len(pieces) > 1 else []), *([] if places else [WITHOUT_CONTEXTS])]
    return ", ".join(words)


def _decays(structure: Structure, assignment: Assignment, holders: Sequence[Holder]) -> bool:
    """Weight decay is for weights that multiply, not for what is added or scales, whatever its shape, nor what a model marks."""
    parameter = assignment.parameter
    if parameter in structure.survey.marked or not parameter.numel():
        return False
    if structure.mixtures.are_experts(holders[0], parameter) or assignment.reason.startswith("experts"):
        return True
    return not is_broadcast(parameter.shape) and any(holder.multiplies for holder in holders)


# ---------------------------------------------------------------------- patterns


def _checked(assignments: list[Assignment], patterns: Sequence[tuple[str, Role]]) -> list[Assignment]:
    for pattern, role in patterns:
        if role not in ROLES:
            raise ValueError(f"group pattern {pattern!r} has role {role!r}; use one of {', '.join(ROLES)}")
        if not any(fnmatch.fnmatchcase(a.name, pattern) for a in assignments):
            raise ValueError(
                f"group pattern {pattern!r} matches no trainable parameter; print optimizer.summary() for the names"
            )
    return assignments


def _override(assignment: Assignment, patterns: Sequence[tuple[str, Role]], structure: Structure) -> Assignment:
    role = next((role for pattern, role in patterns if fnmatch.fnmatchcase(assignment.name, pattern)), assignment.role)
    if role == assignment.role:
        return assignment
    if role == "adamw":
        return replace(assignment, role=role, reason="pattern")
    parameter = assignment.parameter
    decays = parameter not in structure.survey.marked
    if assignment.pieces:
        return replace(assignment, role=role, reason="pattern", decays=decays)
    if parameter.ndim not in (2, 3) or 1 in parameter.shape:
        shape = "x".join(map(str, parameter.shape))
        raise ValueError(f"{assignment.name} ({shape}) is no matrix; take it out of the 'matrix' group patterns")
    # A parameter of any module, or a batch of them: what multiplies with it while the module runs is seen.
    holder, experts = structure.survey.holders[parameter][0], parameter.shape[0] if parameter.ndim == 3 else 1
    transposed = experts > 1 and structure.mixtures.stores_inputs_first(holder, parameter)
    pieces = (parameter.shape[-1] if transposed else parameter.shape[-2],)
    places = (structure.survey.place(holder),)
    named = replace(assignment, role=role, reason="pattern", transposed=transposed, pieces=pieces, places=places)
    return replace(named, experts=experts, decays=decays)

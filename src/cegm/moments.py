"""What line 10 keeps of former steps: a moment per row, and one of every entry where its direction is Adam's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cegm.assignment import Matrix
from cegm.mapping.normalize import adam_direction, balance_rows

States = Mapping[Any, dict[str, Any]]
"""State of each weight, as the optimizer keeps it."""


def square(states: States, gradient: Tensor, matrices: Sequence[Matrix], decay: float) -> None:
    """Takes raw gradients, (matrices, outputs, inputs), into the second moment of every entry, and counts them."""
    for matrix, each in zip(matrices, gradient, strict=True):
        assignment, state = matrix.assignment, states[matrix.assignment.parameter]
        if "second_moment" not in state:
            state["second_moment"] = torch.zeros_like(state["momentum"])
            state["seen"] = torch.zeros(assignment.experts * len(assignment.pieces), dtype=torch.int64)
        matrix.view(state["second_moment"]).lerp_(each.square(), 1.0 - decay)
        state["seen"][matrix.number] += 1


def adam_directions(states: States, mapped: Tensor, matrices: Sequence[Matrix], group: Mapping[str, Any]) -> Tensor:
    """Adam's directions of mapped gradients, (matrices, outputs, inputs)."""
    own = [states[matrix.assignment.parameter] for matrix in matrices]
    moments = torch.stack([m.view(state["second_moment"]) for m, state in zip(matrices, own, strict=True)])
    seen = [int(state["seen"][m.number]) for m, state in zip(matrices, own, strict=True)]
    return adam_direction(mapped, moments, seen, group["entanglement"], group["aux_betas"][1], group["eps"])


def balanced(states: States, direction: Tensor, matrices: Sequence[Matrix], decay: float, eps: float) -> Tensor:
    """Directions over the root of their row moments, which keep `decay` of their past; 1 leaves these as they are."""
    moments = [_row_moment(states[matrix.assignment.parameter], matrix) for matrix in matrices]
    stacked = torch.stack(moments)  # (matrices, outputs, 1)
    direction = balance_rows(direction.float(), stacked, decay, eps)
    torch._foreach_copy_(moments, list(stacked))
    return direction


def _row_moment(state: dict[str, Any], matrix: Matrix) -> Tensor:
    assignment = matrix.assignment
    if "row_moment" not in state:
        rows = assignment.experts * assignment.height
        state["row_moment"] = torch.zeros(rows, 1, device=assignment.parameter.device)
    return matrix.rows(state["row_moment"])

"""Into which blocks the contexts of a weight are split, on the side of its inputs and on that of its outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cegm.assignment import Assignment
from cegm.context.layers import Shapes

CONTEXT_BYTES_PER_WEIGHT = 4
"""What contexts and maps may take when `heads` is left open: as much as the momentum, so that the whole state stays within AdamW's 8."""


def context_shapes(
    assignment: Assignment, group: Mapping[str, Any]
) -> tuple[tuple[int, int, int] | None, tuple[int, int, int] | None]:
    """(heads, width, width) of the contexts of one matrix in a weight: over its inputs, over its outputs; None for a power of 0.

    Raises:
        ValueError: `heads` does not divide a side.
    """
    outputs, inputs = assignment.height, assignment.inputs
    height = math.gcd(*assignment.pieces)
    sharers = (bool(group["power"]) + bool(group["gradient_power"])) * (2 if group["recurrence"] else 1)
    context_shape = demand_shape = None
    if group["power"]:
        width = block_width(inputs, height, group["heads"], sharers, f"the inputs of {assignment.name}")
        context_shape = (inputs // width, width, width)
    if group["gradient_power"]:
        width = block_width(height, inputs, group["heads"], sharers, f"the outputs of {assignment.name}")
        demand_shape = (outputs // width, width, width)
    return context_shape, demand_shape


def turned_shapes(assignment: Assignment, group: Mapping[str, Any]) -> Shapes | None:
    """What `context_shapes` says of a weight that is stored the other way round; None where that cannot be."""
    if len(assignment.pieces) > 1 or assignment.parameter.ndim - (assignment.experts > 1) != 2:
        return None
    try:
        turned = replace(assignment, transposed=not assignment.transposed, pieces=(assignment.inputs,))
        return context_shapes(turned, group)
    except ValueError:
        return None


def block_width(features: int, others: int, heads: int | None, sharers: int, name: str) -> int:
    """Width of the diagonal blocks on a side with `features` features.

    Args:
        features: Features of this side.
        others: Features of the other side of the weight.
        heads: Number of blocks; one per feature where there are fewer; None: the widest blocks that keep all
            block-diagonal matrices of the weight within `CONTEXT_BYTES_PER_WEIGHT`.
        sharers: How many such matrices share that memory: map, and statistics if they recur, on each side that carries
            a context.
        name: Of the side, for the error.

    Raises:
        ValueError: `heads` was asked for and does not divide `features`.
    """
    if heads is None:
        # 4 bytes x width x features for each sharer, over features x others weights
        widest = max(1, CONTEXT_BYTES_PER_WEIGHT * others // (4 * sharers))
        return next(width for width in range(min(widest, features), 0, -1) if features % width == 0)
    if features % heads and features > heads:
        raise ValueError(
            f"heads={heads} does not divide the {features} features of {name}; choose a divisor or leave heads out"
        )
    return max(1, features // heads)

"""What one weight costs its optimizer: bytes of state, operations, bytes through memory, entries that travel.

Everything follows from the optimizer itself, built on the meta device: its groups, its options, its splitting of fused weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from cegm.assignment import Assignment
from cegm.blocks import context_shapes
from cegm.lab.plan.operations import normalize_operations, power_operations
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import build
from cegm.mapping.normalize import polar_dtype
from cegm.optimizer import CEGM
from cegm.owners import work

SCALAR = 4
"""Bytes of a step counter, a rank or a sum of weights: float32."""

FAILURES = 8
"""Bytes of the count of failed refreshes of one side: int64."""

ADAMW_PASSES = 7
"""Times that AdamW reads or writes an entry: weight, gradient and two moments read, all but the gradient written."""

MATRIX_PASSES = 21
"""The same for Algorithm 1 without map and row moment: stacked (2), momentum (3), stacked (2), look-ahead (3), copied and
scaled for the polar factor (4), its result read back (2), decay (2), step (3)."""

MAP_PASSES = 2
ROW_MOMENT_PASSES = 3


@dataclass(frozen=True)
class Weight:
    """One trainable parameter under one method.

    Attributes:
        name: In the model.
        role: `matrix` or `adamw`.
        shape: As stored.
        bytes: Of the parameter.
        state: Bytes of the optimizer's state after a step that has seen contexts.
        contexts: Bytes of what is recorded for it in a step that refreshes.
        refresh_every: Steps between two of these; 0 when it has no contexts.
        polar: Operations per step in the precision of the polar iteration.
        polar_precision: That precision.
        mapping: Operations per step in float32: the products with the maps.
        capture: Operations per token of a step that refreshes.
        refresh: Operations of a refresh.
        traffic: Bytes that a step moves between device and memory.
        pieces: Shapes of the matrices in it, (outputs, inputs), and the widths of their maps; equal ones are updated together.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    bytes: int
    state: int
    contexts: int = 0
    refresh_every: int = 0
    polar: float = 0.0
    polar_precision: torch.dtype = torch.float32
    mapping: float = 0.0
    capture: float = 0.0
    refresh: float = 0.0
    traffic: float = 0.0
    pieces: tuple[tuple[int, ...], ...] = ()

    def shard(self, devices: int) -> float:
        """Part of it that the first of so many devices holds: rows are cut as `torch.chunk` does, so no device holds more."""
        return math.ceil(self.shape[0] / devices) / self.shape[0] if self.shape else 1.0

    @property
    def work(self) -> float:
        """By which owners are balanced: products of one polar factor, up to a constant."""
        return sum(work(outputs, inputs) for outputs, inputs, *_ in self.pieces)


def weights_of(run: RunConfig, model: nn.Module, device: str, bfloat16: bool) -> list[Weight]:
    """Every trainable parameter of the model, under the run's method.

    Args:
        run: Method and options.
        model: On the meta device.
        device: `cpu` or `cuda`, where the run will be.
        bfloat16: Whether it multiplies bfloat16 in hardware.

    Raises:
        ValueError: Whatever would refuse the optimizer itself.
    """
    found = _precise(run, build(run, model), bfloat16)
    names = {parameter: name for name, parameter in model.named_parameters()}
    assignments = {a.parameter: a for a in found.matrices()} if isinstance(found, CEGM) else {}
    return [
        _matrix(assignments[p], group, device, bfloat16) if p in assignments else _adamw(names[p], p, group["role"])
        for group in found.param_groups
        for p in group["params"]
    ]


def _precise(run: RunConfig, optimizer: Optimizer, bfloat16: bool) -> Optimizer:
    """Muon decides its precision by where the weights are, and on the meta device it cannot know."""
    if not bfloat16 and run.method == "muon" and run.optimizer_options.get("precision", "auto") == "auto":
        for group in optimizer.param_groups:
            group["precision"] = "float32"
    return optimizer


def _adamw(name: str, parameter: Tensor, role: str) -> Weight:
    size = parameter.numel() * parameter.element_size()
    traffic = float(ADAMW_PASSES * size)
    return Weight(name, role, tuple(parameter.shape), size, 2 * size + SCALAR, traffic=traffic)


def _matrix(assignment: Assignment, group: Mapping[str, Any], device: str, bfloat16: bool) -> Weight:
    parameter, pieces = assignment.parameter, [matrix.shape for matrix in assignment.matrices()]
    outputs, inputs = assignment.experts * assignment.height, assignment.experts * assignment.inputs
    size = parameter.numel() * parameter.element_size()
    sides = [_stacked(side, assignment.experts) for side in _sides(assignment, group)]
    widths = [0 if side is None else side[-1] for side in sides]
    precision = _polar_precision(group, bfloat16)
    passes = MATRIX_PASSES + MAP_PASSES * sum(map(bool, widths)) + ROW_MOMENT_PASSES * group["row_moment"]
    recorded = sum(4 * math.prod(side) for side in sides if side is not None)
    features = (inputs, outputs)
    powers = (group["power"], group["gradient_power"])
    return Weight(
        assignment.name,
        "matrix",
        tuple(parameter.shape),
        size,
        size + _matrix_extra(sides, outputs, inputs, assignment.experts, group),
        recorded + assignment.experts * SCALAR if recorded else 0,
        group["refresh_every"] if recorded else 0,
        sum(normalize_operations(*piece, group["normalize"], precision) for piece in pieces),
        precision,
        sum(2.0 * parameter.numel() * width for width in widths),
        # Of a mixture a token reaches some experts; how many stands in no weight, so one is counted.
        sum(2.0 * count * width for count, width in zip(features, widths, strict=True)) / assignment.experts,
        sum(
            count / width * power_operations(width, power, device)
            for count, width, power in zip(features, widths, powers, strict=True)
            if width
        ),
        float(passes * size),
        tuple((*piece, *widths) for piece in pieces),
    )


def _sides(assignment: Assignment, group: Mapping[str, Any]) -> tuple[tuple[int, int, int] | None, ...]:
    return context_shapes(assignment, group) if assignment.places else (None, None)


def _stacked(side: tuple[int, int, int] | None, experts: int) -> tuple[int, int, int] | None:
    """Of all experts one after the other."""
    return None if side is None else (experts * side[0], side[1], side[2])


def _matrix_extra(
    sides: Sequence[tuple[int, int, int] | None], outputs: int, inputs: int, experts: int, group: Mapping[str, Any]
) -> int:
    """Bytes of state beside the momentum, all in float32."""
    total = 4 * outputs if group["row_moment"] else 0
    for side in sides:
        if side is not None:
            maps = 2 if group["recurrence"] else 1  # the map, and statistics that recur
            total += 4 * math.prod(side) * maps + experts * (SCALAR + FAILURES)
    if group["scores"] == "attention" and any(side is not None for side in sides):
        total += 4 * inputs  # the summary
    return total


def _polar_precision(group: Mapping[str, Any], bfloat16: bool) -> torch.dtype:
    """As `cegm.mapping.normalize.polar_dtype`, on the machine of the plan."""
    if (
        not bfloat16
        and group["precision"] == "auto"
        and (group["power"] or group["gradient_power"] or group["row_moment"])
    ):
        return torch.float32
    return polar_dtype(group, torch.device("cuda"))

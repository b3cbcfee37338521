"""What one weight costs its optimizer: bytes of state, operations, bytes through memory, entries that travel.

Everything follows from the optimizer itself, built on the meta device: its groups, its options, its splitting of fused
weights, the functions that it calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from cegm.assignment import Assignment
from cegm.blocks import context_shapes
from cegm.lab.forecast.operations import counted, normalize_operations, power_operations
from cegm.lab.train.meter import tensor_bytes
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import build
from cegm.mapping.normalize import polar_dtype
from cegm.mapping.spectrum import map_left, map_right
from cegm.momentum import AGES
from cegm.optimizer import CEGM
from cegm.owners import work

SCALAR = 4
"""Bytes of a step counter, a rank or a sum of weights: float32."""

FAILURES = 8
"""Bytes of the count of failed refreshes of one side: int64."""

MATRIX_PASSES = 21
"""Times that Algorithm 1 without map and row moment reads or writes an entry: stacked (2), momentum (3), stacked (2), look-ahead
(3), copied and scaled for the polar factor (4), its result read back (2), decay (2), step (3)."""

RUNNING_MEAN_PASSES = 8
"""More of them for every older running mean of line 7: added to the momentum (3), faded (2), fed (3)."""

MAP_PASSES = 2
ROW_MOMENT_PASSES = 3


@dataclass(frozen=True)
class Weight:
    """One trainable parameter under one method.

    Attributes:
        name: In the model.
        shape: As stored.
        bytes: Of the parameter.
        state: Bytes of the optimizer's state after a step that has seen contexts.
        traffic: Bytes that a step moves between device and memory.
        products: Operations per step in `precision`: of the polar iteration, or all that a method without one has.
        precision: Of these.
        mapping: Operations per step in float32: the products with the maps.
        contexts: Bytes of what is recorded for it in a step that refreshes.
        refresh_every: Steps between two of these; 0 when it has no contexts.
        capture: Operations per token of a step that refreshes.
        refresh: Operations of a refresh.
        pieces: Shapes of the matrices in it, (outputs, inputs), and the widths of their maps; equal ones are updated together.
    """

    name: str
    shape: tuple[int, ...]
    bytes: int
    state: int
    traffic: float = 0.0
    products: float = 0.0
    precision: torch.dtype = torch.float32
    mapping: float = 0.0
    contexts: int = 0
    refresh_every: int = 0
    capture: float = 0.0
    refresh: float = 0.0
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
    optimizer = build(run, model)
    if not isinstance(optimizer, CEGM):
        return list(_stepped(optimizer, model))
    matrices = {a.parameter: a for a in optimizer.matrices()}
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = []
    for group in optimizer.param_groups:
        precision = _precision(run, group, bfloat16)
        for p in group["params"]:
            size = p.numel() * p.element_size()
            found.append(
                _matrix(matrices[p], optimizer.options_of(p, group), device, precision)
                if p in matrices
                else _element_wise(names[p], p, 2 * size + SCALAR)
            )
    return found


def _element_wise(name: str, parameter: torch.Tensor, state: int, products: float = 0.0) -> Weight:
    """Of a weight that is read twice, written once, with its gradient read and its state read and written."""
    size = parameter.numel() * parameter.element_size()
    return Weight(name, tuple(parameter.shape), size, state, float(3 * size + 2 * state), products)


def _stepped(optimizer: Optimizer, model: nn.Module) -> Iterator[Weight]:
    """Of any other method: its own second step on tensors without numbers, weight by weight; the first begins the state."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
            optimizer.step()
            products = counted(optimizer.step)
            parameter.grad = None
            yield _element_wise(name, parameter, tensor_bytes(optimizer.state[parameter]), products)


def _matrix(assignment: Assignment, group: Mapping[str, Any], device: str, precision: torch.dtype) -> Weight:
    parameter, experts = assignment.parameter, assignment.experts
    pieces, size = [m.shape for m in assignment.matrices()], parameter.numel() * parameter.element_size()
    sides = context_shapes(assignment, group) if assignment.places else (None, None)  # inputs, outputs
    features, powers = (assignment.inputs, assignment.height), (group["power"], group["gradient_power"])
    gradient = torch.empty(experts, assignment.height, assignment.inputs, device="meta")
    state = size + (SCALAR * experts * assignment.height if group["row_moment"] else 0)
    older = len(AGES[group["momentum_kernel"]]) - 1
    state += older * parameter.numel() * torch.promote_types(parameter.dtype, torch.float32).itemsize
    traffic = MATRIX_PASSES + ROW_MOMENT_PASSES * group["row_moment"] + RUNNING_MEAN_PASSES * older
    mapping = capture = refresh = 0.0
    contexts = 0
    for side, count, power, entangle in zip(sides, features, powers, (map_right, map_left), strict=True):
        if side is None:
            continue
        heads, width, _ = side
        entries = 4 * experts * math.prod(side)
        contexts += entries
        # The map, statistics that recur, and per expert a rank and the failures.
        state += entries * (2 if group["recurrence"] else 1) + experts * (SCALAR + FAILURES)
        traffic += MAP_PASSES
        mapping += counted(entangle, gradient, torch.empty(experts, *side, device="meta"))
        # Of a mixture a token reaches some experts; how many stands in no weight, so one is counted.
        capture += 2 * count * width
        refresh += experts * heads * power_operations(width, power, device)
    if contexts and group["scores"] == "attention":
        state += SCALAR * experts * assignment.inputs  # the summary
    widths = [0 if side is None else side[-1] for side in sides]
    return Weight(
        assignment.name,
        tuple(parameter.shape),
        size,
        state,
        float(traffic * size),
        sum(normalize_operations(*piece, group["normalize"], precision) for piece in pieces),
        precision,
        mapping,
        contexts + experts * SCALAR if contexts else 0,
        group["refresh_every"] if contexts else 0,
        capture,
        refresh,
        tuple((*piece, *widths) for piece in pieces),
    )


def _precision(run: RunConfig, group: Mapping[str, Any], bfloat16: bool) -> torch.dtype:
    """As `cegm.mapping.normalize.polar_dtype`, on the machine of the forecast; Muon decides by where its weights are, here nowhere."""
    muon = run.method == "muon"
    chosen = run.optimizer_options.get("precision", "auto") if muon else group["precision"]
    if chosen == "auto" and not bfloat16 and (muon or group["power"] or group["gradient_power"] or group["row_moment"]):
        return torch.float32
    return polar_dtype(group, torch.device("cuda"))

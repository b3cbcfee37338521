"""Algorithm 1, line 8: what entanglement layers recorded becomes the contexts `S_t`, `T_t` and their maps.

Everything that lasts is kept in the optimizer's state under string keys, as tensors and plain numbers: `context_map`
(inputs) and `demand_map` (output gradients), shapes (heads, width, width); `context` and `demand` likewise if they
recur; their effective ranks as `context_rank` and `demand_rank`, and the refreshes that failed in a row as
`context_failures` and `demand_failures`, shape (1,), because torch.distributed.checkpoint cannot load a new entry without
dimensions; and for `attention` scores the `context_summary`, shape (inputs,).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from cegm.context.aggregate import effective_rank, recur
from cegm.context.hierarchy import Sharers
from cegm.context.layers import EntanglementLayer
from cegm.context.scores import Scores
from cegm.groups import Assignment, Matrix, block_of
from cegm.mapping.flow import flow, spectral_radius
from cegm.mapping.spectrum import context_map
from cegm.options import Hierarchy, block_width
from cegm.owners import Owners
from cegm.sharding import is_sharded, local

logger = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 3
BUCKET = 1 << 24
"""Entries of contexts that travel in one message, 64 MiB: few messages, and little memory for them."""

RANK_BITS = 28
"""Ranks draw from seeds this far apart, above those of steps and layers and below those of forward passes."""

MAP_OPTIONS = ("damping", "flow_time", "flow_gain", "flow_decay")
"""Options of a group that decide its maps beside the power, in the order of `Contexts._refresh_maps`."""

State = MutableMapping[Tensor, Any]
Groups = Sequence[Mapping[str, Any]]


class _Due(NamedTuple):
    """A map to be refreshed: of which weight and side, of which fused piece (outputs only), from which blocks."""

    parameter: Tensor
    side: str
    part: Matrix | None
    blocks: Tensor


def context_shapes(
    assignment: Assignment, group: Mapping[str, Any]
) -> tuple[tuple[int, int, int] | None, tuple[int, int, int] | None]:
    """(heads, width, width) of the contexts of one weight: over its inputs, over its outputs; None for a power of 0.

    Raises:
        ValueError: `heads` does not divide a side.
    """
    outputs, inputs = sum(assignment.pieces), assignment.matrices()[0].shape[1]
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


class Contexts:
    """The entanglement layers of one optimizer.

    Args:
        assignments: What is known of each parameter; shared with the optimizer, which adds to it.
        owners: Who keeps the contexts of sharded weights.

    Attributes:
        scaler: Multiplies the losses whose output gradients are seen; None: nothing does.
    """

    def __init__(self, assignments: Mapping[Tensor, Assignment], owners: Owners) -> None:
        self._assignments = assignments
        self._owners = owners
        self._layers: dict[Tensor, EntanglementLayer] = {}
        self._sharers: dict[str, Sharers] = defaultdict(Sharers)
        self._warned_unseen = False
        self.scaler: GradScaler | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no scaler: torch's cannot be copied in the middle of a step."""
        return {**self.__dict__, "scaler": None}

    def watch(self, parameter: Tensor, group: Mapping[str, Any]) -> None:
        """Places an entanglement layer on the modules of one weight, if it has any."""
        assignment = self._assignments[parameter]
        context_shape, demand_shape = context_shapes(assignment, group)
        if assignment.modules:
            self._layers[parameter] = EntanglementLayer(
                assignment.name,
                assignment.modules,
                parameter,
                assignment.matrices()[0].shape[1],
                context_shape,
                demand_shape,
                group["scores"],
                group["exclude_sink"],
                self._sharers_of(assignment.name, group["hierarchy"]),
                sees_gradients=not is_sharded(parameter),
            )

    def _sharers_of(self, name: str, hierarchy: Hierarchy) -> Sharers | None:
        if hierarchy == "layer":
            return None
        return self._sharers[block_of(name) if hierarchy == "block" else ""]

    @property
    def recording(self) -> bool:
        """Whether backward passes are recorded now."""
        return any(layer.recording for layer in self._layers.values())

    def arm(self, state: State, groups: Groups) -> None:
        """Decides whether the next step records, gives the controls their next seed and the other scores their guide."""
        for group in groups:
            due = group["steps"] % group["refresh_every"] == 0
            for index, parameter in enumerate(group["params"]):
                layer = self._layers.get(parameter)
                if layer is not None:
                    layer.recording = due
                    layer.seed.fill_(group["steps"] * len(group["params"]) + index + (_rank() << RANK_BITS))
                    # Before its first step a group has nothing to compare with, and owners have nothing to tell.
                    layer.guide = self._guide(state, parameter, group["scores"]) if due and group["steps"] else None

    def _guide(self, state: State, parameter: Tensor, scores: Scores) -> Tensor | None:
        """What the scores of a layer compare with: its summary, or its entangled gradient; None before the first step."""
        own, assignment = state.get(parameter, {}), self._assignments[parameter]
        outputs, inputs = sum(assignment.pieces), assignment.matrices()[0].shape[1]
        if scores == "attention":
            return self._owners.tell(parameter, own.get("context_summary"), (inputs,))
        if scores != "alignment":
            return None
        momentum = own.get("momentum")
        rows = momentum if momentum is None else momentum.mT if assignment.transposed else momentum.flatten(1)
        return self._owners.tell(parameter, None if rows is None else rows.float(), (outputs, inputs))

    def clear(self) -> None:
        """Forgets what was recorded for a step that was given up."""
        for layer in self._layers.values():
            layer.clear()
        for sharers in self._sharers.values():
            sharers.clear()

    def refresh(self, state: State, groups: Groups) -> None:
        """`C_t` from the backward passes of this step, `S_t` from it and the past, and the maps from `S_t`.

        Raises:
            RuntimeError: A layer's context or map was not finite three times in a row.
        """
        _reduce_over_ranks([layer for layer in self._layers.values() if layer.recording])
        with self._owners.together():
            self._refresh(state, groups)

    def _refresh(self, state: State, groups: Groups) -> None:
        due: dict[tuple[Any, ...], list[_Due]] = defaultdict(list)
        for group in groups:
            keep = group["recurrence"] ** group["refresh_every"]
            powers = {"context": group["power"], "demand": group["gradient_power"]}
            for parameter in group["params"]:
                for side, mean in self._collect(parameter).items():
                    if side == "summary":
                        _remember(state[parameter], mean, keep)
                        continue
                    aggregate = self._aggregate(state[parameter], parameter, side, mean, keep)
                    if aggregate is None:
                        continue
                    for part in _parts(self._assignments[parameter], side):
                        blocks = _blocks(aggregate, part)  # (heads, width, width)
                        key = (blocks.shape, powers[side], blocks.device, *(group[name] for name in MAP_OPTIONS))
                        due[key].append(_Due(parameter, side, part, blocks))
        for (_, power, _, *options), members in due.items():
            self._refresh_maps(state, members, power, *options)

    def _collect(self, parameter: Tensor) -> dict[str, Tensor]:
        """The means that the layer of one weight recorded, by side; nothing on ranks that do not own the weight."""
        layer = self._layers.get(parameter)
        if layer is None or not layer.recording or parameter.grad is None:
            return {}
        means = layer.collect()
        layer.clear()
        if means is None and bool(local(parameter.grad).any()):
            self._warn_unseen(layer.name)
        if means is None or not self._owners.owns(parameter):
            return {}
        if "demand" in means:
            # Ranks average their gradients, so each one's are as many times as large as there are ranks.
            scale = _ranks() * (1.0 if self.scaler is None else self.scaler.get_scale())
            means["demand"] /= scale**2
        return means

    def _aggregate(self, own: dict[str, Any], parameter: Tensor, side: str, mean: Tensor, keep: float) -> Tensor | None:
        """`S_t` after `C_t`; a context that is not finite stays outside, counts as a failure, and gives None."""
        if not bool(mean.isfinite().all()):
            self._count_failure(own, parameter, side, "its context is not finite")
            return None
        if keep > 0.0:  # without recurrence S_t is C_t, and nothing needs to be kept of it
            if side in own:
                recur(own[side], mean, keep)
            else:
                own[side] = mean
            mean = own[side]
        own[f"{side}_rank"] = effective_rank(mean)[None]
        return mean

    def _refresh_maps(
        self, state: State, members: list[_Due], power: float, damping: float, time: float, gain: float, decay: float
    ) -> None:
        """`Phi` of all members, whose blocks have equal shapes, in one batch; with a flow time, the flow through it."""
        maps = context_map(torch.stack([m.blocks for m in members]), power, damping)  # (members, heads, width, width)
        finite = maps.isfinite().flatten(1).all(dim=1)  # (members,)
        if time:
            flowing = [m for m, good in zip(members, finite.tolist(), strict=True) if good]
            self._require_stable(flowing, spectral_radius(maps[finite]).amax(dim=-1).tolist(), gain, decay)
            maps[finite] = flow(maps[finite], time, gain, decay)
        for member, new, good in zip(members, maps, finite.tolist(), strict=True):
            own, key = state[member.parameter], f"{member.side}_map"
            if not good:
                self._count_failure(own, member.parameter, member.side, "its map is not finite")
                continue
            own[f"{member.side}_failures"] = torch.zeros(1, dtype=torch.int64)
            if key not in own:
                own[key] = self._identity(member.parameter, member.side, new)
            _blocks(own[key], member.part).copy_(new)

    def _require_stable(self, members: list[_Due], radii: list[float], gain: float, decay: float) -> None:
        for member, radius in zip(members, radii, strict=True):
            if gain * radius >= decay:
                side = "inputs" if member.side == "context" else "outputs"
                raise ValueError(
                    f"{self._assignments[member.parameter].name}: the flow over its {side} is unstable, flow_gain {gain:g} x"
                    f" spectral radius {radius:.4g} = {gain * radius:.4g} is not below flow_decay {decay:g}; lower flow_gain"
                )

    def _identity(self, parameter: Tensor, side: str, like: Tensor) -> Tensor:
        """The map of a whole parameter before its pieces have theirs."""
        assignment, width = self._assignments[parameter], like.shape[-1]
        features = sum(assignment.pieces) if side == "demand" else assignment.matrices()[0].shape[1]
        return torch.eye(width, device=like.device).repeat(features // width, 1, 1)

    def _count_failure(self, own: dict[str, Any], parameter: Tensor, side: str, why: str) -> None:
        """The last good map stays in use; three failures in a row end the run."""
        name = self._assignments[parameter].name
        failures = int(own.get(f"{side}_failures", 0)) + 1
        own[f"{side}_failures"] = torch.tensor([failures])
        if failures >= FAILURES_IN_A_ROW:
            raise RuntimeError(
                f"{name}: {side} refresh failed {failures} times in a row ({why}); raise damping or lower lr"
            )
        logger.warning("%s: %s refresh failed (%s), the last good map is kept", name, side, why)

    def _warn_unseen(self, name: str) -> None:
        if not self._warned_unseen:
            warnings.warn(
                f"{name} has a gradient but its layer was never called, so it has no context and follows the base optimizer",
                stacklevel=5,
            )
        self._warned_unseen = True


def _remember(own: dict[str, Any], mean: Tensor, keep: float) -> None:
    """The running weighted mean of a layer's contexts; one that is not finite stays outside."""
    if not bool(mean.isfinite().all()):
        return
    if "context_summary" in own:
        recur(own["context_summary"], mean, keep)
    else:
        own["context_summary"] = mean


def _parts(assignment: Assignment, side: str) -> Sequence[Matrix | None]:
    """What is mapped apart: inputs are one, outputs one per fused piece, because each piece has its own trace."""
    return [None] if side == "context" else assignment.matrices()


def _blocks(statistics: Tensor, part: Matrix | None) -> Tensor:
    return statistics if part is None else part.blocks(statistics)


def _distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _ranks() -> int:
    return dist.get_world_size() if _distributed() else 1


def mean_over_ranks(value: float) -> float:
    """Of a number that every data-parallel process has; not finite if one of them is not."""
    if not _distributed():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def _rank() -> int:
    return dist.get_rank() if _distributed() else 0


def _reduce_over_ranks(layers: list[EntanglementLayer]) -> None:
    """Sums numerators and denominators over data-parallel ranks; a layer that only some ranks called counts as zero on the others.

    One that no rank called, because something else uses its weight, stays unseen on all of them.
    """
    if not _distributed() or not layers:
        return
    seen = torch.tensor([layer.mass_carrier.grad is not None for layer in layers], device=layers[0].mass_carrier.device)
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

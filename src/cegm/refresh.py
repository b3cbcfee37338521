"""Algorithm 1, line 8: what entanglement layers recorded becomes the contexts `S_t`, `T_t` and their maps.

Everything that lasts is kept in the optimizer's state under string keys, as tensors and plain numbers: `context_map`
(inputs) and `demand_map` (output gradients), shapes (heads, width, width); `context` and `demand` likewise if they
recur; their effective ranks as `context_rank` and `demand_rank`, and the refreshes that failed in a row as
`context_failures` and `demand_failures`, shape (experts,), 1 for most, because torch.distributed.checkpoint cannot load a
new entry without dimensions; and for `attention` scores the `context_summary`, shape (inputs,). The experts of a mixture
stand one after the other in the first dimension.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cegm.assignment import Matrix, of_expert
from cegm.context.aggregate import effective_rank, recur
from cegm.context.recorder import Recorder
from cegm.mapping.flow import flow, spectral_radius
from cegm.mapping.spectrum import context_map
from cegm.ranks import ranks, reduce_over_ranks
from cegm.recording import Groups, Recorders, State
from cegm.sharding import local

logger = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 3
MAP_OPTIONS = ("damping", "flow_time", "flow_gain", "flow_decay")
"""Options of a group that decide its maps beside the power, in the order of `Contexts._refresh_maps`."""


class _Due(NamedTuple):
    """A map to be refreshed: of which weight and side, of which of its matrices (one of several that share their inputs), from which blocks."""

    parameter: Tensor
    side: str
    part: Matrix
    blocks: Tensor


class Contexts(Recorders):
    """The recorders of one optimizer, and what follows from what they recorded."""

    def refresh(self, state: State, groups: Groups) -> None:
        """`C_t` from the backward passes of this step, `S_t` from it and the past, and the maps from `S_t`.

        Raises:
            RuntimeError: A layer's context or map was not finite three times in a row.
        """
        recorders = [recorder for recorder in self._recorders.values() if recorder.recording]
        reduce_over_ranks([layer for recorder in recorders for layer in recorder.layers])
        with self._owners.together():
            self._refresh(state, groups)

    def _refresh(self, state: State, groups: Groups) -> None:
        due: dict[tuple[Any, ...], list[_Due]] = defaultdict(list)
        for group in groups:
            keep = group["recurrence"] ** group["refresh_every"]
            powers = {"context": group["power"], "demand": group["gradient_power"]}
            for parameter in group["params"]:
                collected = self._collect(parameter)
                matrices = self._matrices_by_expert(parameter) if collected else []
                for expert, means in collected:
                    for side, mean in means.items():
                        if side == "summary":
                            self._remember(state[parameter], parameter, expert, mean, keep)
                            continue
                        aggregate = self._aggregate(state[parameter], parameter, side, expert, mean, keep)
                        if aggregate is None:
                            continue
                        for part in _parts(matrices[expert], side):
                            blocks = _own_blocks(aggregate, part, side)  # (heads, width, width)
                            key = (blocks.shape, powers[side], blocks.device, *(group[name] for name in MAP_OPTIONS))
                            due[key].append(_Due(parameter, side, part, blocks))
        for (_, power, _, *options), members in due.items():
            self._refresh_maps(state, members, power, *options)

    def _matrices_by_expert(self, parameter: Tensor) -> list[list[Matrix]]:
        assignment = self._assignments[parameter]
        matrices, each = assignment.matrices(), len(assignment.pieces)
        return [matrices[expert * each : (expert + 1) * each] for expert in range(assignment.experts)]

    def _collect(self, parameter: Tensor) -> list[tuple[int, dict[str, Tensor]]]:
        """The means that the layers of one weight recorded, by expert and side; nothing on ranks that do not own the weight."""
        recorder = self._recorders.get(parameter)
        if recorder is None or not recorder.recording or parameter.grad is None:
            return []
        means = self.collected(parameter)
        if not means and bool(local(parameter.grad).any()):
            self._warn_unseen(recorder)
        recorder.rest()
        if not self._owners.owns(parameter):
            return []
        # Ranks average their gradients, so each one's are as many times as large as there are ranks.
        scale = ranks() * (1.0 if self.scaler is None else self.scaler.get_scale())
        for _, each in means:
            if "demand" in each:
                each["demand"] /= scale**2
        return means

    def _aggregate(
        self, own: dict[str, Any], parameter: Tensor, side: str, expert: int, mean: Tensor, keep: float
    ) -> Tensor | None:
        """`S_t` after `C_t`; a context that is not finite stays outside, counts as a failure, and gives None."""
        if not bool(mean.isfinite().all()):
            self._count_failure(own, parameter, side, expert, "its context is not finite")
            return None
        experts = self._assignments[parameter].experts
        if keep > 0.0:  # without recurrence S_t is C_t, and nothing needs to be kept of it
            mean = _recurring(own, side, expert, experts, mean, keep)
        _entry(own, f"{side}_rank", expert, experts, math.nan, mean.device).copy_(effective_rank(mean))
        return mean

    def _remember(self, own: dict[str, Any], parameter: Tensor, expert: int, mean: Tensor, keep: float) -> None:
        """The running weighted mean of a layer's contexts; one that is not finite stays outside."""
        if bool(mean.isfinite().all()):
            _recurring(own, "context_summary", expert, self._assignments[parameter].experts, mean, keep)

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
            expert, experts = member.part.expert, member.part.assignment.experts
            if not good:
                self._count_failure(own, member.parameter, member.side, expert, "its map is not finite")
                continue
            _entry(own, f"{member.side}_failures", expert, experts, 0).zero_()
            if key not in own:
                own[key] = self._identity(member.parameter, member.side, new)
            _own_blocks(own[key], member.part, member.side, whole=True).copy_(new)

    def _require_stable(self, members: list[_Due], radii: list[float], gain: float, decay: float) -> None:
        for member, radius in zip(members, radii, strict=True):
            if gain * radius >= decay:
                side = "inputs" if member.side == "context" else "outputs"
                raise ValueError(
                    f"{self._assignments[member.parameter].name}: the flow over its {side} is unstable, flow_gain {gain:g} x"
                    f" spectral radius {radius:.4g} = {gain * radius:.4g} is not below flow_decay {decay:g}; lower flow_gain"
                )

    def _identity(self, parameter: Tensor, side: str, like: Tensor) -> Tensor:
        """The map of a whole parameter before its matrices have theirs."""
        assignment, width = self._assignments[parameter], like.shape[-1]
        features = assignment.height if side == "demand" else assignment.inputs
        return torch.eye(width, device=like.device).repeat(assignment.experts * features // width, 1, 1)

    def _count_failure(self, own: dict[str, Any], parameter: Tensor, side: str, expert: int, why: str) -> None:
        """The last good map stays in use; three failures in a row end the run."""
        assignment = self._assignments[parameter]
        name = assignment.name if assignment.experts == 1 else f"{assignment.name}[{expert}]"
        entry = _entry(own, f"{side}_failures", expert, assignment.experts, 0)
        entry += 1
        failures = int(entry)
        if failures >= FAILURES_IN_A_ROW:
            raise RuntimeError(
                f"{name}: {side} refresh failed {failures} times in a row ({why}); raise damping or lower lr"
            )
        logger.warning("%s: %s refresh failed (%s), the last good map is kept", name, side, why)

    def _warn_unseen(self, recorder: Recorder) -> None:
        if not self._warned_unseen:
            warnings.warn(
                f"{recorder.name} has a gradient but {recorder.trouble}, so it has no context and follows the base optimizer",
                stacklevel=5,
            )
        self._warned_unseen = True


def _entry(own: dict[str, Any], key: str, expert: int, experts: int, initial: float, device: Any = None) -> Tensor:
    """Of a state with one number per expert, shape (experts,), the place of one; made when it is not there."""
    if key not in own:
        dtype = torch.int64 if isinstance(initial, int) else torch.float32
        own[key] = torch.full((experts,), initial, dtype=dtype, device=device)
    place: Tensor = own[key][expert]
    return place


def _recurring(own: dict[str, Any], key: str, expert: int, experts: int, mean: Tensor, keep: float) -> Tensor:
    """The running mean of one expert, one after the other in the state; its first one is taken as it is."""
    is_first = key not in own
    if is_first:
        own[key] = torch.zeros(experts * len(mean), *mean.shape[1:], device=mean.device)
    running = of_expert(own[key], expert, experts)
    if is_first or (experts > 1 and not bool(running.any())):
        running.copy_(mean)
    else:
        recur(running, mean, keep)
    return running


def _parts(matrices: Sequence[Matrix], side: str) -> Sequence[Matrix]:
    """What is mapped apart: inputs are one, outputs one per fused piece, because each piece has its own trace."""
    return matrices[:1] if side == "context" else matrices


def _own_blocks(statistics: Tensor, part: Matrix, side: str, whole: bool = False) -> Tensor:
    """Of the statistics of one expert, or of `whole` a parameter, the blocks of one weight."""
    if whole:
        return part.context_blocks(statistics) if side == "context" else part.demand_blocks(statistics)
    width = statistics.shape[-1]
    return statistics if side == "context" else statistics[part.start // width : part.stop // width]

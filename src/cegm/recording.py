"""Algorithm 1, line 8: which weights are watched, and when their contexts are recorded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from cegm.assignment import Assignment, block_of
from cegm.blocks import context_shapes, turned_shapes
from cegm.context.hierarchy import Sharers
from cegm.context.layers import EntanglementLayer
from cegm.context.recorder import Recorder
from cegm.context.taps import is_plain, watch
from cegm.options import Hierarchy, Scores
from cegm.owners import Owners
from cegm.ranks import rank

EXPERT_BITS = 20
RANK_BITS = 28
"""Experts and ranks draw from seeds this far apart, above those of steps and layers and below those of forward passes."""

State = MutableMapping[Tensor, Any]
Groups = Sequence[Mapping[str, Any]]


class Recorders:
    """The entanglement layers of one optimizer.

    Args:
        assignments: What is known of each parameter; shared with the optimizer, which adds to it.
        owners: Who keeps the contexts of sharded weights.

    Attributes:
        scaler: Multiplies the losses whose output gradients are seen; None: nothing does.
    """

    def __init__(self, assignments: MutableMapping[Tensor, Assignment], owners: Owners) -> None:
        self._assignments = assignments
        self._owners = owners
        self._recorders: dict[Tensor, Recorder] = {}
        self._sharers: dict[str, Sharers] = defaultdict(Sharers)
        self._warned_unseen = False
        self.scaler: GradScaler | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no scaler: torch's cannot be copied in the middle of a step."""
        return {**self.__dict__, "scaler": None}

    def watch(self, parameter: Tensor, group: Mapping[str, Any]) -> None:
        """Places entanglement layers where one weight meets its contexts, if that is in reach."""
        assignment = self._assignments[parameter]
        context_shape, demand_shape = context_shapes(assignment, group)
        if not assignment.places:
            return
        sharers = self._sharers_of(assignment.name, group["hierarchy"])
        layers = [
            EntanglementLayer(
                assignment.name,
                parameter.device,
                assignment.inputs,
                context_shape,
                demand_shape,
                group["scores"],
                group["exclude_sink"],
                sharers,
            )
            for _ in range(assignment.experts)
        ]
        plain = all(is_plain(place) for place in assignment.places)
        recorder = self._recorders[parameter] = Recorder(
            assignment.name,
            parameter,
            layers,
            plain,
            assignment.transposed,
            None if plain else turned_shapes(assignment, group),
        )
        for place in assignment.places:
            watch(place, recorder, assignment.transposed)

    def learn(self, state: State) -> None:
        """Takes over what products, or the state of an earlier run, tell of how weights are stored."""
        for parameter, recorder in self._recorders.items():
            known, a = state.get(parameter, {}).get("transposed"), self._assignments[parameter]
            if known is not None:
                recorder.turn(bool(known))
            if a.transposed != recorder.transposed:
                state[parameter]["transposed"] = torch.tensor([int(recorder.transposed)])
                self._assignments[parameter] = replace(a, transposed=recorder.transposed, pieces=(a.inputs,))

    def record(self) -> None:
        """Has every layer record whatever passes from now on."""
        for recorder in self._recorders.values():
            recorder.recording = True

    def collected(self, parameter: Tensor) -> list[tuple[int, dict[str, Tensor]]]:
        """The means that the layers of one weight recorded, by expert and side; an expert that no token reached has none."""
        layers = self._recorders[parameter].layers
        means = [(expert, each) for expert, layer in enumerate(layers) if (each := layer.collect()) is not None]
        if len(layers) > 1:  # an expert whose tokens the loss does not reach keeps what it has
            means = [(expert, each) for expert, each in means if bool(layers[expert].mass_carrier.grad)]
        return means

    def begin_late(self, parameters: Iterable[Tensor]) -> None:
        """Has weights whose backward pass is over already record at the next step."""
        for parameter in parameters:
            recorder = self._recorders.get(parameter)
            if recorder is not None:
                recorder.recording, recorder.is_late = False, True

    def forget(self, parameter: Tensor) -> None:
        """Takes the layers of a weight away that is gone from the model; and its hooks."""
        recorder = self._recorders.pop(parameter, None)
        if recorder is None:
            return
        recorder.unhook()
        for layer in recorder.layers:
            if layer.sharers is not None:
                layer.sharers.layers.remove(layer)

    def _sharers_of(self, name: str, hierarchy: Hierarchy) -> Sharers | None:
        if hierarchy == "layer":
            return None
        return self._sharers[block_of(name) if hierarchy == "block" else ""]

    @property
    def recording(self) -> bool:
        """Whether backward passes are recorded now."""
        return any(recorder.recording for recorder in self._recorders.values())

    def arm(self, state: State, groups: Groups) -> None:
        """Decides whether the next step records, gives the controls their next seed and the other scores their guide."""
        places = {
            p: place
            for place, p in enumerate(p for group in groups if group["role"] == "matrix" for p in group["params"])
        }
        for group in groups:
            due = group["steps"] % group["refresh_every"] == 0
            for parameter in group["params"]:
                recorder = self._recorders.get(parameter)
                if recorder is None:
                    continue
                recorder.recording = due or recorder.is_late
                seed = group["steps"] * len(places) + places[parameter] + (rank() << RANK_BITS)
                # Before its first step a group has nothing to compare with, and owners have nothing to tell.
                guide = (
                    self._guide(state, parameter, group["scores"]) if recorder.recording and group["steps"] else None
                )
                for number, layer in enumerate(recorder.layers):
                    layer.seed.fill_(seed + (number << EXPERT_BITS))
                    layer.guide = None if guide is None else guide[number]

    def _guide(self, state: State, parameter: Tensor, scores: Scores) -> Tensor | None:
        """What the scores of each layer of a weight compare with, its summary or its entangled gradient; None before the first step.

        Shape (experts, inputs) or (experts, outputs, inputs).
        """
        own, assignment = state.get(parameter, {}), self._assignments[parameter]
        experts, outputs, inputs = assignment.experts, assignment.height, assignment.inputs
        if scores == "attention":
            summary = self._owners.tell(parameter, own.get("context_summary"), (experts * inputs,))
            return None if summary is None else summary.view(experts, inputs)
        if scores != "alignment":
            return None
        momentum = own.get("momentum")
        if momentum is not None:
            stacked = momentum if experts > 1 else momentum[None]
            momentum = (stacked.mT if assignment.transposed else stacked.flatten(2)).float()
        return self._owners.tell(parameter, momentum, (experts, outputs, inputs))

    def clear(self) -> None:
        """Forgets what was recorded for a step that was given up."""
        for recorder in self._recorders.values():
            recorder.clear()
        for sharers in self._sharers.values():
            sharers.clear()

"""The model whose weights an optimizer trains, looked at again when it changes.

Weights are unfrozen, layers are replaced or added, vocabularies grow, adapters are merged and their wrapper is thrown
away. A model is held weakly. Walking through it costs time, so that it is done when something tells that it may be
worth it: torch calls back where a parameter or a module is registered, and a weight without a gradient, or one whose
shape is another, is seen at the next step.
"""

from __future__ import annotations

import fnmatch
import weakref
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from cegm.assignment import Assignment, Role
from cegm.roles import assign


class Changes(NamedTuple):
    """What is different since the last look: weights with a gradient that nobody trains, weights that are gone, weights of another shape."""

    new: list[Tensor]
    gone: list[Tensor]
    reshaped: list[Tensor]


class FollowedModel:
    """Of one optimizer.

    Args:
        model: Is held weakly; when it is gone, what is left of its modules takes its place.
        patterns: Overrides of the automatic roles, as `assign` takes them.
        trained: What the optimizer was given; other weights that are trainable now are another's to train, and never new.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[tuple[str, Role]], trained: Container[Tensor]) -> None:
        self._patterns = patterns
        self._listen()
        self._look(model)
        self._left = {p for p in self._shapes if p.requires_grad and p not in trained}
        self._waiting = [p for p in self._shapes if not p.requires_grad]

    def _listen(self) -> None:
        self._has_registered = False
        listener = weakref.ref(self)

        def hear(*_: Any) -> None:
            follower = listener()
            if follower is not None:
                follower._has_registered = True

        for register in (register_module_parameter_registration_hook, register_module_module_registration_hook):
            weakref.finalize(self, register(hear).remove)

    def __getstate__(self) -> dict[str, Any]:
        """A copy follows the copy of the model."""
        return {**vars(self), "_modules": self.model()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._look(state["_modules"] or nn.Module())
        self._listen()

    @_disable_dynamo  # which takes the call of a reference for a forward pass
    def model(self) -> nn.Module | None:
        """The model; when its wrapper is gone, the outermost modules that are left and in use.

        None when only single layers are left, which the optimizer itself holds where it watches them.
        """
        if (whole := self._modules[0]()) is not None:
            return whole
        alive = [module for reference in self._modules if (module := reference()) is not None]
        if not any(True for module in alive for _ in module.children()):
            return None
        outermost: list[nn.Module] = []
        used: set[Tensor] = set()
        for module in alive:
            used_here = {p for p in module.parameters() if p.grad is not None}
            if not used_here <= used:
                outermost.append(module)
                used |= used_here
        if len(outermost) < 2:
            return next(iter(outermost), alive[0])
        rest = nn.Module()
        rest._modules.update({str(place): module for place, module in enumerate(outermost)})  # registers nothing
        return rest

    def assignments(self, handed: Container[Tensor] = ()) -> list[Assignment]:
        """Of what is trainable in the model, or handed over by the user."""
        model = self.model()
        if model is None:
            return []
        names = [name for name, parameter in model.named_parameters() if parameter.requires_grad or parameter in handed]
        still = [(pattern, role) for pattern, role in self._patterns if fnmatch.filter(names, pattern)]
        return assign(model, still, handed)

    def order(self) -> dict[Tensor, int]:
        """Where each of its weights stands."""
        return {parameter: place for place, parameter in enumerate(self._shapes)}

    # ------------------------------------------------------------------ changes

    def may_have_changed(self, grouped: Iterable[Tensor]) -> bool:
        """Whether it is worth walking through the model."""
        shapes = self._shapes
        return (
            self._has_registered
            or any(p.grad is None or p.shape != shapes.get(p, p.shape) for p in grouped)
            or any(p.grad is not None for p in self._waiting)
        )

    def changes(self, grouped: Iterable[Tensor]) -> Changes | None:
        """What became of the weights since the last look, which this one is; None when the model is gone.

        Args:
            grouped: Those that the optimizer has.
        """
        before, model, trained = self._shapes, self.model(), dict.fromkeys(grouped)  # in their order
        self._has_registered = False
        if model is None:
            return None
        self._look(model)
        self._left &= set(self._shapes)
        rest = [p for p in self._shapes if p not in trained and p not in self._left]
        new = [p for p in rest if p.requires_grad and p.grad is not None]
        self._waiting = [p for p in rest if p.grad is None]
        self._left.update(new)  # are told of once
        gone = [p for p in trained if p in before and p not in self._shapes and p.grad is None]
        return Changes(new, gone, [p for p in trained if p in before and self._shapes.get(p, before[p]) != before[p]])

    def _look(self, model: nn.Module) -> None:
        self._modules = [weakref.ref(module) for module in model.modules()]  # a module stands before what is in it
        self._shapes: dict[Tensor, torch.Size] = {p: p.shape for p in model.parameters()}

"""AdamW that is held to where training began: what L2-SP and elastic weight consolidation share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from cegm.lab.baselines.adamw import AdamW
from cegm.lab.baselines.paired import Shared
from cegm.state import WholeState

BEGINNING = "beginning"
"""Of a weight's state: the weight before its first step, one more number per weight."""


class AnchoredAdamW(WholeState, AdamW):
    """AdamW on every parameter, each of which is held to its beginning before every step but its first.

    Args:
        model: The model.
        lr: Learning rate of the linear layers' matrices.
        betas: Betas of the matrices.
        strength: By name of the option that says how strongly, which all groups keep, its value, >= 0.
        **shared: See `Shared`.

    Raises:
        ValueError: A strength below 0.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        betas: tuple[float, float],
        strength: dict[str, float],
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, lr, betas=betas, **shared)
        for name, value in strength.items():
            if value < 0:
                raise ValueError(f"{name}={value:g} is below 0; 0 is AdamW")
        for group in self.param_groups:
            group.update(strength)

    def hold(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Holds a weight, or its gradient, to the beginning that its state keeps."""
        raise NotImplementedError

    def begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """Adds to the state of a weight what is kept of it beside its beginning: nothing."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        beginnings: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter]
                if BEGINNING in state:
                    self.hold(parameter, state, group)
                else:
                    beginnings[parameter] = parameter.detach().clone()
        super().step()
        for parameter, beginning in beginnings.items():  # only now: torch takes a state that is not empty for its own
            self.state[parameter][BEGINNING] = beginning
            self.begin(parameter, self.state[parameter])
        return loss

"""AdamW (torch's own) with the groups of the comparison: the default everywhere, and the bar that is easiest to clear."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from cegm.assignment import Matrix, table
from cegm.lab.baselines.paired import Shared, grouped
from cegm.mapping.normalize import effective_ranks
from cegm.sharding import whole


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` on every parameter, with the roles of `cegm.assignment` as groups.

    Args:
        model: The model.
        lr: Learning rate of the linear layers' matrices.
        betas: Betas of the matrices.
        **shared: See `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        **shared: Unpack[Shared],
    ) -> None:
        self.assignments, matrices, rest = grouped(model, lr, **shared)
        super().__init__([{**group, "betas": betas} for group in matrices] + rest, lr=lr)

    def summary(self) -> str:
        """The group table."""
        return table(self.assignments)

    @torch.no_grad()
    def diagnostics(self) -> dict[str, dict[str, float]]:
        """Per matrix, what AdamW made of its last gradient; changes nothing.

        Call it after `step()` and before `zero_grad()`; of sharded weights, on all ranks.

        Returns:
            By name, those of `CEGM.diagnostics` that need no context: `gradient_norm`, `update_to_weight`,
            `gradient_rank` and `update_rank`.
        """
        groups = {p: group for group in self.param_groups for p in group["params"] if group["role"] == "matrix"}
        return {
            matrix.name: self._diagnose(matrix, groups[assignment.parameter])
            for assignment in self.assignments
            if assignment.parameter in groups
            and assignment.parameter.grad is not None
            and assignment.parameter in self.state
            for matrix in assignment.matrices()
        }

    def _diagnose(self, matrix: Matrix, group: dict[str, Any]) -> dict[str, float]:
        parameter = matrix.assignment.parameter
        assert parameter.grad is not None
        gradient, weight = (
            matrix.view(whole(each)).float() for each in (parameter.grad, parameter)
        )  # (outputs, inputs)
        update = self._update(matrix, group)
        ranks = [float(effective_ranks(each[None])) for each in (gradient, update)]
        return {
            "gradient_norm": float(gradient.norm()),
            "update_to_weight": float(group["lr"] * update.norm() / weight.norm().clamp_min(group["eps"])),
            "gradient_rank": ranks[0],
            "update_rank": ranks[1],
        }

    def _update(self, matrix: Matrix, group: dict[str, Any]) -> Tensor:
        """The last step over the learning rate, without weight decay, (outputs, inputs)."""
        state = self.state[matrix.assignment.parameter]
        corrections = [1.0 - beta ** float(state["step"]) for beta in group["betas"]]
        first, second = (
            matrix.view(whole(state[key])).float() / correction
            for key, correction in zip(("exp_avg", "exp_avg_sq"), corrections, strict=True)
        )
        return first / (second.sqrt() + group["eps"])

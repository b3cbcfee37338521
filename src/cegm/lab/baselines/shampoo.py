"""One-sided Shampoo (arXiv 2503.20762, 2503.10537): one Kronecker factor, of the batch gradient, to the power -1/2.

The nearest relative of `gradient_power = -1/2`: there the factor is summed over tokens, here over batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer
from typing_extensions import Unpack

from cegm.lab.baselines.paired import Paired, Shared


class OneSidedShampoo(Paired):
    """One-sided Shampoo for the matrices and `torch.optim.AdamW` for the rest.

    With momentum `M` and the running mean `V` of `G G^T` (of `G^T G` where the weight has more rows than columns),
    `W -= lr .2 sqrt(max(m, n)) (V + eps I)^(-1/2) M`. The scale is Muon's, but steps are shorter where gradients are noisy,
    because the momentum is averaged after `V` has measured single gradients; it wants a larger learning rate.

    Args:
        model: The model.
        lr: Learning rate of the matrices.
        betas: Of momentum and of the factor.
        precondition_frequency: Steps between two inverse roots, >= 1.
        eps: Relative to the mean eigenvalue of the factor, > 0.
        **shared: See `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        precondition_frequency: int = 10,
        eps: float = 1e-6,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(
            model,
            _OneSided,
            {"betas": betas, "precondition_frequency": precondition_frequency, "eps": eps},
            lr,
            **shared,
        )


class _OneSided(Optimizer):
    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float],
        precondition_frequency: int,
        eps: float,
    ) -> None:
        if precondition_frequency < 1:
            raise ValueError(f"precondition_frequency={precondition_frequency} must be at least 1")
        super().__init__(groups, {"betas": betas, "precondition_frequency": precondition_frequency, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        rows = parameter.grad.flatten(1)  # (outputs, inputs)
        wide = rows.shape[0] <= rows.shape[1]
        gradient = rows if wide else rows.mT  # (short, long)
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["momentum"] = torch.zeros_like(gradient)
            state["factor"] = torch.zeros(2 * gradient.shape[:1], device=gradient.device)
        state["step"] += 1
        (first, second), frequency = group["betas"], group["precondition_frequency"]
        state["momentum"].lerp_(gradient, 1 - first)
        state["factor"].lerp_((gradient @ gradient.mT).float(), 1 - second)
        if state["step"] <= frequency or state["step"] % frequency == 1:  # the first factors are far from their mean
            # The mean of the first k squares, not a mean with zeros: otherwise the first steps would be far too long.
            state["root"] = _inverse_root(state["factor"] / (1 - second ** state["step"]), group["eps"])
        direction = state["root"].to(gradient.dtype) @ (state["momentum"] / (1 - first ** state["step"]))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        step = (direction if wide else direction.mT).reshape(parameter.shape)
        parameter.sub_(step, alpha=group["lr"] * 0.2 * math.sqrt(max(rows.shape)))


def _inverse_root(factor: Tensor, eps: float) -> Tensor:
    """`(V + eps v I)^(-1/2)` with `v` the mean eigenvalue, by eigendecomposition in float64."""
    values, vectors = torch.linalg.eigh(factor.double())
    floor = eps * values.mean().clamp_min(torch.finfo(torch.float32).tiny)
    scaled = vectors * (values.clamp_min(0.0) + floor).rsqrt()  # columns
    return (scaled @ vectors.mT).to(factor.dtype)

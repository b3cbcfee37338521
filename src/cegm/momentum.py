"""Line 7: the entangled gradient `G_t`, a weighted sum of all gradients so far; its kernel says what those of each age weigh.

One running mean weighs them by a single exponential. Several of other ages, added up, forget slowly and still answer
fast: why, and how ages and weights follow, is in docs/method.md. Whatever the kernel, a state keeps `G_t` itself as
`momentum`; under a longer one it also keeps the shares of the older running means in it, as `momentum_1` and so on. The
share of the youngest is what they leave of `G_t`, so as many tensors suffice as there are running means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cegm.assignment import Matrix
from cegm.moments import States
from cegm.options import MomentumKernel


class RunningMean(NamedTuple):
    """One of those that a kernel adds up.

    Attributes:
        rate: What a step moves it towards the newest gradient, in (0, 1]; its mean age is `1 / rate - 1`.
        weight: Of the newest gradient in the sum; all weights add up to 1.
    """

    rate: float
    weight: float


AGES: dict[MomentumKernel, tuple[float, ...]] = {"ema": (1.0,), "two": (1 / 3, 3.0), "log": (1 / 3, 1.0, 3.0, 9.0)}
"""Mean ages of a kernel's running means, the youngest first, over `(1 - l) / l`, that of the only one of `ema`."""

WEIGHTS: dict[MomentumKernel, tuple[float, ...]] = {"ema": (1.0,), "two": (0.45, 0.55), "log": (0.25, 0.25, 0.25, 0.25)}
"""At the first step. Those of `two` let as much noise through as `ema` does; those of `log` make every age weigh its inverse."""

LAST_POWER = -0.5
"""Of the age, which the weights of `log` follow after `coefficient_period` steps; they get there in a straight line."""


def running_means(group: Mapping[str, Any]) -> list[RunningMean]:
    """Those of a group's kernel in this step, the youngest first."""
    kernel, coefficient = group["momentum_kernel"], group["entanglement"]
    ages, weights = AGES[kernel], WEIGHTS[kernel]
    if kernel == "log":
        passed = min(1.0, group["steps"] / group["coefficient_period"])
        powers = [age**LAST_POWER for age in ages]
        weights = tuple(
            (1.0 - passed) * first + passed * power / sum(powers) for first, power in zip(weights, powers, strict=True)
        )
    rates = [coefficient / (coefficient + age * (1.0 - coefficient)) for age in ages]
    return [RunningMean(*each) for each in zip(rates, weights, strict=True)]


def entangle(states: States, gradient: Tensor, matrices: Sequence[Matrix], group: Mapping[str, Any]) -> Tensor:
    """Takes gradients, (matrices, outputs, inputs), into `G_t`; gives it back, with the Nesterov look-ahead if asked for."""
    own = [states[matrix.assignment.parameter] for matrix in matrices]
    momenta = [m.view(state["momentum"]) for m, state in zip(matrices, own, strict=True)]
    if group["momentum_kernel"] == "ema":
        torch._foreach_lerp_(momenta, list(gradient.to(momenta[0].dtype)), group["entanglement"])
    else:
        _add_up(momenta, own, list(gradient), matrices, running_means(group))
    return looked_ahead(gradient, torch.stack(momenta), group)


def _add_up(
    momenta: list[Tensor],
    own: Sequence[dict[str, Any]],
    gradients: list[Tensor],
    matrices: Sequence[Matrix],
    means: Sequence[RunningMean],
) -> None:
    """`G_t = sum_k M_k` with `M_k <- (1 - l_k) M_k + l_k w_k G`, where the first `M_k` is never formed."""
    youngest, *older = means
    torch._foreach_mul_(momenta, 1.0 - youngest.rate)
    torch._foreach_add_(momenta, gradients, alpha=sum(rate * weight for rate, weight in means))
    for number, mean in enumerate(older, start=1):
        shares = [_share(state, m, number) for m, state in zip(matrices, own, strict=True)]
        torch._foreach_add_(momenta, shares, alpha=youngest.rate - mean.rate)  # it fades by so much less
        torch._foreach_mul_(shares, 1.0 - mean.rate)
        torch._foreach_add_(shares, gradients, alpha=mean.rate * mean.weight)


def _share(state: dict[str, Any], matrix: Matrix, number: int) -> Tensor:
    """What one of the older running means has in `G_t`; float32 at least, because so slow a mean moves by less than bfloat16 tells."""
    momentum, key = state["momentum"], f"momentum_{number}"
    if key not in state:
        state[key] = torch.zeros_like(momentum, dtype=torch.promote_types(momentum.dtype, torch.float32))
    return matrix.view(state[key])


def looked_ahead(gradient: Tensor, momentum: Tensor, group: Mapping[str, Any]) -> Tensor:
    """`l G + (1 - l) G_t` where a group looks ahead, whatever its kernel; else `G_t` as it is."""
    if not group["nesterov"]:
        return momentum
    return torch.lerp(gradient.to(momentum.dtype), momentum, 1.0 - group["entanglement"])

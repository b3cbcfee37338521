"""The flow of a gradient through its context: `dG/dt = G (g Phi - d I)`, stepped exactly (paper, section III-C).

The paper's `dG/dt = g C^T G - d G` has the shape of `G` only with the context on the side of the inputs, as in line 9 of
Algorithm 1; over the output gradients the same flow acts from the left.
"""

from __future__ import annotations

import torch
from torch import Tensor


def flow(context_map: Tensor, time: float, gain: float, decay: float) -> Tensor:
    """`exp(Dt (g Phi - d I))`: the exact step of the flow over a time `Dt`, as a map.

    Args:
        context_map: `Phi`, symmetric, shape (..., width, width).
        time: `Dt` >= 0.
        gain: `g` >= 0, how strongly a context feeds the gradient.
        decay: `d`, how fast a gradient without context fades.

    Returns:
        Shape of `context_map`.
    """
    identity = torch.eye(context_map.shape[-1], device=context_map.device, dtype=context_map.dtype)
    return torch.linalg.matrix_exp(time * (gain * context_map - decay * identity))


def spectral_radius(context_map: Tensor) -> Tensor:
    """`rho(Phi)` of each member, shape of the batch dimensions; the flow is stable where `g rho(Phi) < d`."""
    return torch.linalg.eigvalsh(context_map).abs().amax(dim=-1)

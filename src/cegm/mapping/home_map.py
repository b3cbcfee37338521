"""Retention: a direction turned away from home contexts after line 10 of Algorithm 1, `E^ <- Tq(T) E^ Phi(S)` at the norm it had.

To second order an update `D` changes what a model says about its home text by `tr(T D S D^T)/2`; `S^-r` takes out of `D` what
home contexts would notice. The map comes after the normalisation: a polar factor would undo it. `pull` takes back what has
been noticed over many steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cegm.context.card import Spectrum


class HomeMap(NamedTuple):
    """`(S/s + e I)^-r` up to a factor, `I + U diag(g) U^T`, or one per block.

    Attributes:
        vectors: `U`, shape (..., width, directions).
        gains: `g`, shape (..., directions): -1 for what is taken out altogether, 0 for what stays.
    """

    vectors: Tensor
    gains: Tensor

    def right(self, direction: Tensor) -> Tensor:
        """`D M` for a direction (outputs, inputs)."""
        blocks = direction.unflatten(-1, (-1, self.vectors.shape[-2])).transpose(-2, -3)  # (heads, outputs, width)
        turned = torch.baddbmm(blocks, (blocks @ self.vectors) * self.gains[..., None, :], self.vectors.mT)
        return turned.transpose(-2, -3).flatten(-2)

    def left(self, direction: Tensor) -> Tensor:
        """`M D`."""
        return self.right(direction.mT).mT


def home_map(home: Spectrum, power: float, damping: float) -> HomeMap:
    """The map that retention applies over one side of a weight.

    Args:
        home: `S` over the inputs, or `T` over the outputs.
        power: `r` >= 0; 0 is the identity.
        damping: `e` > 0, relative to the mean eigenvalue.
    """
    mean = home.mean.clamp_min(torch.finfo(home.values.dtype).tiny)
    leading = (home.values / mean[..., None] + damping) ** -power
    rest = (home.rest / mean + damping) ** -power
    if home.values.shape[-1] == home.width:  # nothing is left over, so the largest factor stands for 1
        rest = leading.amax(-1)
    vectors, gains = home.vectors, leading / rest[..., None] - 1.0
    return HomeMap(*((vectors, gains) if vectors.ndim == 3 else (vectors[None], gains[None])))


def pull(deviation: Tensor, home: Spectrum, strength: float, lr: float) -> Tensor:
    """What is to be taken off a weight, times `lr`, `k D (S/s) (I + h k S/s)^-1` with `s` the mean eigenvalue of `S`.

    To first order in `h` it is the gradient step of `k tr(D S D^T) / 2s`; the inverse makes that implicit, so that it shrinks
    `D` along an eigenvector by `1 / (1 + h k s_i/s)`, and passes the beginning at no strength.

    Args:
        deviation: `D = W - W0`, (outputs, inputs).
        home: `S` over the inputs.
        strength: `k` >= 0; along an average eigenvector as much as a decoupled weight decay of `k` towards `W0`.
        lr: `h` >= 0.
    """
    mean = home.mean.clamp_min(torch.finfo(home.values.dtype).tiny)
    leading, rest = (strength * each / (mean + lr * strength * each) for each in (home.values, home.rest))
    return rest * deviation + ((deviation @ home.vectors) * (leading - rest)) @ home.vectors.mT


def at_norm_of(turned: Tensor, direction: Tensor) -> Tensor:
    """`turned` scaled to the norm of `direction`; zero where either is."""
    norm = torch.linalg.vector_norm(turned).clamp_min(torch.finfo(turned.dtype).tiny)
    return turned * (torch.linalg.vector_norm(direction) / norm)

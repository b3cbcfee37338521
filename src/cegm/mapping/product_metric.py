"""Steps of a product `B A` taken by its factors: independent of how it is factored, `A -> M A` and `B -> B M^-1` for any `M`.

A direction of a factor is normalised between two halves of a map, `P(E R) R^T` for `B` and `L P(L^T E)` for `A`, with
`R R^T = (A A^T)^-1` and `L L^T = (B^T B + d^2 (A A^T)^-1)^-1`. Then `dB A` and `B dA` have the singular values that `P` gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cegm.mapping.spectrum import matrix_power

LARGEST_TURN = 0.1
"""By which part of itself `A` moves in a step at most. It bounds `dA` while `B` is small, and `dB dA`, which is no step of the product."""

ROUNDING = 8
"""Units of rounding that are added to eigenvalues, relative to their mean: below them their inverse is noise."""


def product_roots(first: Tensor, second: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """`L` and `R`, the halves of the maps of `A` and of `B`, shape (pairs, rank, rank) each.

    Args:
        first: `A`, shape (pairs, rank, inputs), of full rank.
        second: `B`, shape (pairs, outputs, rank); it may be zero, as it is at first.
        steps: By which `A`'s normalised direction is multiplied, shape (pairs,); `d` is so much over `LARGEST_TURN`.
    """
    gram = damped(first @ first.mT)
    right = matrix_power(gram, -0.5)
    root = gram @ right
    image = second @ root
    product = damped(image.mT @ image)  # eigenvalues are the squared singular values of B A
    least = (steps / LARGEST_TURN).square().clamp_min(torch.finfo(gram.dtype).tiny)[:, None, None]
    return root @ matrix_power(product + least * torch.eye(gram.shape[-1], device=gram.device), -0.5), right


def damped(gram: Tensor) -> Tensor:
    """Gram matrices whose condition number is within what their precision holds."""
    identity = torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
    mean = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return gram + ROUNDING * torch.finfo(gram.dtype).eps * mean * identity

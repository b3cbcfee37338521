"""The context map `Phi(S) = (S/s + e I)^p`, `s = tr(S)/n`, by matrix products alone (Algorithm 1, line 9).

Any real power is reached by square roots: `p = -5/8` is `A^(-1/2) A^(-1/8)`, and each root comes from the coupled
Newton-Schulz iteration (Higham, Functions of Matrices, 2008, eq. 6.35), which yields `A^(1/2)` and `A^(-1/2)` together.
Only products of matrices are used, so the work batches over layers and heads and needs no eigendecomposition.
"""

from __future__ import annotations

import torch
from torch import Tensor

FRACTION_BITS = 20
"""A power is rounded to a multiple of 2^-20; over a condition number of 10^6 that moves a result by less than 2e-5."""

MAXIMUM_ITERATIONS = 40
"""Newton-Schulz gains a factor 2.25 on the smallest eigenvalue per iteration: enough for condition numbers up to 10^10."""

TOLERANCE = 1e-5
"""Largest deviation of `Z Y` from the identity at which float32 iterations stop: below it only rounding moves."""


def context_map(aggregate: Tensor, power: float, damping: float) -> Tensor:
    """`Phi(S) = (S/s + e I)^p` of a block-diagonal context.

    Args:
        aggregate: `S`, shape (..., heads, width, width), symmetric positive semi-definite, float32.
        power: Any real `p`.
        damping: `e >= 0`, relative to the mean eigenvalue, which the division by `s` makes 1.

    Returns:
        Same shape as `aggregate`. The identity where a context is all zero: nothing was seen, so nothing is mapped.
    """
    width = aggregate.shape[-1]
    identity = torch.eye(width, device=aggregate.device, dtype=aggregate.dtype)
    mean_eigenvalue = aggregate.diagonal(dim1=-2, dim2=-1).mean(dim=(-2, -1))[..., None, None, None]  # (..., 1, 1, 1)
    seen = mean_eigenvalue > 0
    scaled = torch.where(seen, aggregate / torch.where(seen, mean_eigenvalue, 1.0), identity)
    mapped = matrix_power((scaled + scaled.mT) / 2 + damping * identity, power)
    return torch.where(seen, mapped, identity)


def matrix_power(matrix: Tensor, power: float) -> Tensor:
    """`A^p` of symmetric positive (semi-)definite matrices, shape (..., n, n), for any real `p`.

    Roots and inverses need `A` to be positive definite in floating point: a condition number up to about 10^6 in
    float32.
    """
    whole, fraction = divmod(round(abs(power) * 2**FRACTION_BITS), 2**FRACTION_BITS)
    result = torch.linalg.matrix_power(matrix, whole) if power >= 0 or whole == 0 else None
    root = matrix
    bit = 2 ** (FRACTION_BITS - 1)
    while fraction or result is None:
        root, inverse_root = square_roots(root)
        if result is None:  # a negative whole part: A^-1 = A^(-1/2) A^(-1/2)
            result = torch.linalg.matrix_power(inverse_root @ inverse_root, whole)
        if fraction & bit:
            result = result @ (root if power > 0 else inverse_root)
            fraction -= bit
        bit //= 2
    return (result + result.mT) / 2


def square_roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """`(A^(1/2), A^(-1/2))` by the coupled Newton-Schulz iteration, shape (..., n, n) each."""
    identity = torch.eye(matrix.shape[-1], device=matrix.device, dtype=matrix.dtype)
    # Row sum and Frobenius norm bound the largest eigenvalue, so the iteration starts inside its region of convergence.
    row_sum, frobenius = matrix.abs().sum(dim=-1).amax(dim=-1), matrix.square().sum(dim=(-2, -1)).sqrt()
    bound = torch.minimum(row_sum, frobenius)[..., None, None].clamp_min(torch.finfo(matrix.dtype).tiny)
    root, inverse_root = matrix / bound, identity.expand_as(matrix)
    for _ in range(MAXIMUM_ITERATIONS):
        product = inverse_root @ root
        if float((product - identity).abs().amax()) < TOLERANCE:
            break
        correction = 1.5 * identity - 0.5 * product
        root, inverse_root = root @ correction, correction @ inverse_root
    scale = bound.sqrt()
    return root * scale, inverse_root / scale


def map_right(gradient: Tensor, context: Tensor) -> Tensor:
    """`G Phi(S)^T` for a block-diagonal map over the inputs.

    Args:
        gradient: Shape (..., outputs, inputs).
        context: `Phi`, shape (..., heads, width, width) with heads * width = inputs.
    """
    blocks = gradient.unflatten(-1, context.shape[-3:-1]).transpose(-2, -3)  # (..., heads, outputs, width)
    return (blocks @ context.mT).transpose(-2, -3).flatten(-2)


def map_left(gradient: Tensor, context: Tensor) -> Tensor:
    """`Phi(T) G` for a block-diagonal map over the outputs; shapes as in `map_right`, heads * width = outputs."""
    blocks = gradient.unflatten(-2, context.shape[-3:-1])  # (..., heads, width, inputs)
    return (context @ blocks).flatten(-3, -2)

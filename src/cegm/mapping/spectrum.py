"""The context map `Phi(S) = (S/s + e I)^p`, `s = tr(S)/n` (Algorithm 1, line 9).

On processors a power is taken of the eigenvalues. Accelerators are slow at eigendecompositions and fast at products, so
there any real power is reached by square roots: `p = -5/8` is `A^(-1/2) A^(-1/8)`, and each root comes from a coupled
iteration (Higham, Functions of Matrices, 2008, section 6.3), which yields `A^(1/2)` and `A^(-1/2)` together, with the
quintics of `cegm.mapping.minimax`: products of matrices alone, batched over layers and heads.
"""

from __future__ import annotations

import logging
from functools import reduce

import torch
from torch import Tensor

from cegm.mapping.minimax import LIMIT, QUINTICS

logger = logging.getLogger(__name__)

FRACTION_BITS = 20
"""A power is rounded to a multiple of 2^-20; over a condition number of 10^6 that moves a result by less than 2e-5."""

MAXIMUM_ITERATIONS = 20
"""Before cubic convergence an iteration gains a factor 3.5 on the smallest eigenvalue: enough for condition numbers up to 10^10."""

CLOSE = 0.01
"""Deviation of `Z Y` from the identity, in the Frobenius norm, from which one more iteration, which cubes it, leaves only rounding."""


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
    float32. Where an eigendecomposition does not converge, products take over.
    """
    if matrix.device.type == "cpu" and (power < 0 or power != int(power)):
        try:
            return power_by_eigenvalues(matrix, power)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            logger.info("an eigendecomposition did not converge; square roots by products instead")
    return power_by_products(matrix, power)


def power_by_eigenvalues(matrix: Tensor, power: float) -> Tensor:
    """`V L^p V^T`: less time than products on a processor, .36 of it at 256 features and .28 at 512."""
    values, vectors = torch.linalg.eigh(matrix)  # (..., n) ascending, (..., n, n)
    # Below rounding an eigenvalue is unknown, even in its sign.
    least = values[..., -1:] * (torch.finfo(values.dtype).eps * values.shape[-1])
    powers = values.clamp_min(least).pow(power)
    return (vectors * powers[..., None, :]) @ vectors.mT


def power_by_products(matrix: Tensor, power: float) -> Tensor:
    """`A^p` by square roots and products of them."""
    whole, fraction = divmod(round(abs(power) * 2**FRACTION_BITS), 2**FRACTION_BITS)
    to_invert = whole if power < 0 else 0
    factors = [] if to_invert or (fraction and not whole) else [torch.linalg.matrix_power(matrix, whole)]
    root = matrix
    bit = 2 ** (FRACTION_BITS - 1)
    while fraction or to_invert:
        root, inverse_root = square_roots(root)
        if to_invert:  # A^-1 = A^(-1/2) A^(-1/2)
            factors.append(torch.linalg.matrix_power(inverse_root @ inverse_root, to_invert))
            to_invert = 0
        if fraction & bit:
            factors.append(root if power > 0 else inverse_root)
            fraction -= bit
        bit //= 2
    result = reduce(torch.matmul, factors)
    return (result + result.mT) / 2


def square_roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """`(A^(1/2), A^(-1/2))` by a coupled iteration, shape (..., n, n) each."""
    identity = torch.eye(matrix.shape[-1], device=matrix.device, dtype=matrix.dtype)
    # Row sum and Frobenius norm bound the largest eigenvalue, so the iteration starts inside its region of convergence.
    row_sum, frobenius = matrix.abs().sum(dim=-1).amax(dim=-1), matrix.square().sum(dim=(-2, -1)).sqrt()
    bound = torch.minimum(row_sum, frobenius)[..., None, None].clamp_min(torch.finfo(matrix.dtype).tiny)
    root = inverse_root = product = matrix / bound
    for iteration in range(MAXIMUM_ITERATIONS):
        a, b, c = QUINTICS[iteration] if iteration < len(QUINTICS) else LIMIT
        # Only the limit converges, so only then is it worth asking, which waits for the device.
        close = iteration >= len(QUINTICS) and float(torch.linalg.matrix_norm(product - identity).amax()) < CLOSE
        square = product @ product
        correction = a * identity + b * product + c * square
        root = root @ correction
        inverse_root = correction @ inverse_root if iteration else correction  # which starts as the identity
        if close:
            break
        product = inverse_root @ root
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

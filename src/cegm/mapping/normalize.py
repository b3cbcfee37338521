"""Normalisation of a mapped gradient `E` (Algorithm 1, line 10), by matrix products alone, batched over equal shapes.

All functions take `E` of shape (matrices, outputs, inputs) and normalise each matrix by itself. A matrix of zeros stays
zero, and one whose norm is below `eps` is not amplified to a full step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cegm.options import LayerScale, Normalize

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of Muon's quintic iteration (Jordan, 2024): singular values end between .7 and 1.2 instead of at 1, in few steps."""

POLAR_STEPS = 5

GRAM_RATIO = 2
"""From this ratio of the sides on, the iteration over the smaller Gram matrix takes less time (.84 at 2, .68 at 3, .54 at 4)."""

SQUARINGS = 20


def normalize(mapped: Tensor, kind: Normalize, eps: float, dtype: torch.dtype) -> Tensor:
    """`E` scaled to the norm that `kind` names; `dtype` is the precision of the polar iteration, which `product` takes in its own."""
    if kind in ("polar", "product"):
        dtype = dtype if kind == "polar" else torch.promote_types(mapped.dtype, torch.float32)
        gram = prefers_gram(mapped.shape[-2], mapped.shape[-1], dtype)
        return gram_polar(mapped.float(), eps) if gram else polar(mapped, eps, dtype)
    if kind == "spectral":
        return mapped / spectral_norms(mapped)[:, None, None].clamp_min(eps)
    if kind == "frobenius":
        return mapped / frobenius_norms(mapped).clamp_min(eps)
    return mapped


def polar(mapped: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """The orthogonal polar factor `U V^T`, approximately: five quintic Newton-Schulz steps, as in `torch.optim.Muon`.

    The order of operations is torch's, so that with the context switched off the two agree bit for bit.
    """
    a, b, c = QUINTIC
    tall = mapped.shape[-2] > mapped.shape[-1]
    factor = mapped.to(dtype, copy=True)
    factor = factor.mT if tall else factor  # (matrices, short, long)
    factor.div_(frobenius_norms(factor).clamp_min(eps))
    for _ in range(POLAR_STEPS):
        gram = factor @ factor.mT  # (matrices, short, short)
        update = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor = torch.baddbmm(factor, update, factor, beta=a)
    return factor.mT if tall else factor


def prefers_gram(outputs: int, inputs: int, dtype: torch.dtype) -> bool:
    """Whether the iteration over the Gram matrix is right and faster for matrices of this shape.

    The Gram matrix squares the condition number, so it takes true float32 products: neither bfloat16, which is also
    what agrees with `torch.optim.Muon` to the bit, nor the shortened ones of `torch.set_float32_matmul_precision`.
    """
    exact = dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return exact and max(outputs, inputs) >= GRAM_RATIO * min(outputs, inputs)


def gram_polar(mapped: Tensor, eps: float) -> Tensor:
    """The same five steps as `polar`, taken by the Gram matrix `A = X X^T` and the product `Q` of their polynomials.

    Each step is `X <- P X` with `P = a I + b A + c A^2`, which commutes with `A`; so `A <- P A P`, and `X` itself is
    needed twice only: for the first `A` and the last `Q X`. Two products with the long side instead of ten, for twelve
    more with the short side alone. Singular values below a thousandth of the norm lose digits, at worst 1e-3 of the
    direction, where the quintic itself leaves .3 open.
    """
    tall = mapped.shape[-2] > mapped.shape[-1]
    factor = mapped.mT if tall else mapped  # (matrices, short, long)
    factor = factor / frobenius_norms(factor).clamp_min(eps)
    gram = factor @ factor.mT  # (matrices, short, short)
    product = polynomial = _polynomial(gram)
    for _ in range(POLAR_STEPS - 1):
        gram = polynomial @ gram @ polynomial
        polynomial = _polynomial(gram)
        product = polynomial @ product
    factor = product @ factor
    return factor.mT if tall else factor


def _polynomial(gram: Tensor) -> Tensor:
    """`a I + b A + c A^2`."""
    a, b, c = QUINTIC
    result = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    result.diagonal(dim1=-2, dim2=-1).add_(a)
    return result


def frobenius_norms(matrices: Tensor) -> Tensor:
    """One norm per matrix, shape (matrices, 1, 1), summed as for a single matrix, so that batching changes no bit."""
    return torch.stack(torch._foreach_norm(list(matrices)))[:, None, None]


def spectral_norms(matrices: Tensor) -> Tensor:
    """The largest singular value of each matrix, shape (matrices,), to float precision.

    With `A = E E^T`, `tr(A^k)^(1/k)` tends to the largest eigenvalue from above, within a factor `n^(1/k)`. Twenty
    squarings reach `k = 2^20`, where that factor is 1 + 7e-6 for n = 1000; normalising before each squaring keeps the
    numbers in range.
    """
    narrow = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    gram = (narrow @ narrow.mT).float()  # (matrices, short, short)
    logarithm = torch.zeros(gram.shape[0], device=gram.device)
    tiny = torch.finfo(gram.dtype).tiny
    for squaring in range(SQUARINGS):
        trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(tiny)
        logarithm += trace.log() / 2**squaring
        gram = gram / trace[:, None, None]
        gram = gram @ gram
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(tiny)
    return ((logarithm + trace.log() / 2**SQUARINGS) / 2).exp()


def effective_ranks(matrices: Tensor) -> Tensor:
    """How many directions each matrix spreads over: the participation ratio of its squared singular values.

    With `A = E E^T` it is `tr(A)^2 / tr(A^2)`, so one product with the short side gives it and no decomposition: as much
    as a fifteenth of the polar iteration.

    Args:
        matrices: Shape (matrices, outputs, inputs), float32.

    Returns:
        Shape (matrices,): 1 when one singular value is all there is, the short side when all are equal; NaN for zeros.
    """
    norms = frobenius_norms(matrices)
    narrow = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    scaled = narrow / norms  # squares of tiny numbers would vanish; a trace of 1 is left
    return 1.0 / (scaled @ scaled.mT).square().sum(dim=(-2, -1))


def balance_rows(direction: Tensor, moments: Tensor, decay: float, eps: float) -> Tensor:
    """Divides each output row by its running root mean square, keeping the Frobenius norm (NorMuon, arXiv 2510.05491).

    Args:
        direction: Normalised update, shape (matrices, outputs, inputs).
        moments: Running second moment of each row, shape (matrices, outputs, 1); updated in place. No bias correction:
            it is one factor for all rows, and the norm is restored afterwards.
        decay: Weight of the past, in [0, 1]; 1 leaves the moments as they are.
        eps: Added to the root.
    """
    rows = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)  # (matrices, outputs, 1)
    moments.lerp_(rows.square() / direction.shape[-1], 1.0 - decay)
    factors = 1.0 / (moments.sqrt() + eps).clamp_min(torch.finfo(moments.dtype).tiny)
    # Both norms follow from those of the rows, so the matrix itself is read once more, not four times.
    before, after = (torch.linalg.vector_norm(each, dim=-2, keepdim=True) for each in (rows, rows * factors))
    return direction * (factors * (before / after.clamp_min(eps)))


def adam_direction(
    mapped: Tensor, moments: Tensor, seen: Sequence[int], coefficient: float, decay: float, eps: float
) -> Tensor:
    """`E` over the root of the running second moment of the raw gradient, entry by entry, as Adam has it (arXiv 1412.6980).

    Args:
        mapped: `E`, shape (matrices, outputs, inputs).
        moments: Running means of squares, of the same shape.
        seen: How many gradients are in the moments of each matrix.
        coefficient: `l` of line 7, the weight of the newest gradient in `E`.
        decay: What the moments keep of their past per step, in [0, 1).
        eps: Added to the root.
    """
    first = [1.0 - (1.0 - coefficient) ** count for count in seen]
    second = [1.0 - decay**count for count in seen]
    first_factor, second_factor = (mapped.new_tensor(each)[:, None, None] for each in (first, second))
    return mapped / first_factor / ((moments / second_factor).sqrt() + eps)


def layer_scale(options: Mapping[str, Any], outputs: int, inputs: int) -> float:
    """By which the learning rate of a layer of this shape is multiplied (line 11); Adam's direction needs nothing to match AdamW."""
    kind: LayerScale = options["layer_scale"]
    if kind == "match_adamw":
        return 1.0 if options["normalize"] == "adam" else float(0.2 * math.sqrt(max(outputs, inputs)))
    return math.sqrt(max(1.0, outputs / inputs)) if kind == "spectral" else 1.0


def polar_dtype(options: Mapping[str, Any], device: torch.device) -> torch.dtype:
    """Precision of the polar iteration.

    `auto` follows `torch.optim.Muon` (bfloat16) wherever that is at home: on accelerators, on processors that multiply
    matrices of bfloat16 in hardware, and whenever the options *are* Muon (no context, no row moment), so that the two
    agree to the bit. On other processors bfloat16 takes 2 to 30 times as long as float32, so float32 is used.
    """
    if options["precision"] != "auto":
        return torch.bfloat16 if options["precision"] == "bfloat16" else torch.float32
    is_muon = options["power"] == options["gradient_power"] == 0 and not options["row_moment"]
    return torch.bfloat16 if is_muon or device.type != "cpu" or multiplies_bfloat16() else torch.float32


def multiplies_bfloat16() -> bool:
    """Whether this processor has matrix instructions for bfloat16.

    Those of AVX-512 are of vectors: with them a polar factor takes 1.8 to 3.9 times as long as in float32
    (benchmarks/polar_precision.py). AMX comes with AVX-512; who holds torch to less has neither, and bfloat16 is emulated.
    """
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    amx = capabilities.get("amx_bf16", False) and "AVX512" in torch.backends.cpu.get_cpu_capability()
    return amx or any(capabilities.get(name, False) for name in ("arm_bf16", "bf16"))

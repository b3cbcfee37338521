"""Contexts of many tokens become one matrix: `C_t = sum_i a_i c_i c_i^T`, and its recurrence `S_t` (Algorithm 1, line 8).

"Multi-head": the inputs are split into equal blocks and the matrix is block-diagonal, shape (heads, width, width) with
`heads * width = inputs`; blocks off the diagonal are never computed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_gram(vectors: Tensor, weights: Tensor, heads: int) -> Tensor:
    """The numerator of `C_t`: `sum_i w_i x_i x_i^T`, block-diagonal.

    Args:
        vectors: Contexts or output gradients in float32, shape (tokens, features).
        weights: Unnormalised token weights, shape (tokens,).
        heads: Number of diagonal blocks; divides features.

    Returns:
        Shape (heads, features / heads, features / heads), float32.
    """
    blocks = vectors.unflatten(-1, (heads, -1)).transpose(0, 1)  # (heads, tokens, width)
    return (blocks * weights[:, None]).mT @ blocks


def recur(aggregate: Tensor, context: Tensor, recurrence: float) -> None:
    """`S_t = r S_{t-1} + (1 - r) C_t`, in place.

    Bias correction would divide `S_t` by the number `1 - r^t`. It is left out because every reader of `S` divides by
    its trace first, which cancels any such factor.
    """
    aggregate.lerp_(context, 1.0 - recurrence)


def effective_rank(aggregate: Tensor) -> Tensor:
    """Participation ratio `tr(S)^2 / tr(S^2)`, 0-D: 1 when all contexts share one direction, up to their number of features."""
    trace = aggregate.diagonal(dim1=-2, dim2=-1).sum()
    scaled = aggregate / trace.clamp_min(torch.finfo(aggregate.dtype).tiny)  # squares of tiny numbers would vanish
    return torch.where(trace > 0, 1.0 / scaled.square().sum(), trace)

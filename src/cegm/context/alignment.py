"""Alignment scores `A_t`: which tokens push a weight the way it is already going (paper arXiv 2502.00048, III-C)."""

from __future__ import annotations

import torch
from torch import Tensor


def alignment(contexts: Tensor, demands: Tensor, entangled: Tensor) -> Tensor:
    """`a_i = d_i^T G_t c_i`: the inner product of each token's own gradient `d_i c_i^T` with the entangled gradient.

    No token's gradient is ever formed: the cost is that of one product of the layer, and of one more (tokens, inputs)
    tensor. Summed over the tokens of a batch, the scores are the inner product of the batch's gradient with `G_t`.

    Args:
        contexts: Inputs of the layer `c_i`, shape (tokens, inputs).
        demands: Output gradients `d_i`, shape (tokens, outputs).
        entangled: Entangled gradient (momentum) `G_t`, shape (outputs, inputs).

    Returns:
        Unnormalised scores of either sign, shape (tokens,); the paper's `A_t` is their softmax. In float32, or in
        float64 when anything given is.
    """
    given = (contexts, demands, entangled)
    precision = torch.float64 if any(t.dtype == torch.float64 for t in given) else torch.float32
    contexts, demands, entangled = (t.to(precision) for t in given)
    return ((demands @ entangled) * contexts).sum(dim=-1)  # (tokens, inputs) summed over inputs

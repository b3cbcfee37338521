"""Context scores `f`: how much each token of the batch counts in the context of a layer (Algorithm 1, line 8).

The paper's weights are `a = softmax(f(C))` over the tokens of the batch. A batch arrives in pieces (micro-batches,
ranks), so a piece yields the *unnormalised* weights `exp(f_i)`, and numerator and denominator of the softmax are summed
apart.

A token whose output gradient is exactly zero took no part in the loss (padding, a masked prompt behind the last layer)
and carries no weight, whatever its score.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

Scores = Literal["uniform", "gradient", "random"]
SCORES: tuple[str, ...] = get_args(Scores)


def token_weights(scores: Scores, demands: Tensor, seed: Tensor) -> Tensor:
    """Unnormalised softmax weights `exp(f_i)` of the tokens of one micro-batch.

    Args:
        scores: `uniform` (f = 0), `gradient` (f = log |d_i|^2, so exp(f) = |d_i|^2) or `random` (f standard normal: a
        control).
        demands: Output gradients `d_i` in float32, shape (tokens, outputs).
        seed: 0-D int64 tensor; decides the draw of `random`, unused otherwise.

    Returns:
        Weights >= 0 in float32, shape (tokens,).
    """
    if scores == "gradient":
        return demands.square().sum(dim=-1)  # (tokens,)
    reached = (demands != 0).any(dim=-1).to(demands.dtype)  # (tokens,)
    if scores == "uniform":
        return reached
    return reached * counted_normal(demands.shape[0], seed).exp()


def counted_normal(count: int, seed: Tensor) -> Tensor:
    """Standard normal numbers as a pure function of (seed, position), float32, shape (count,).

    A generator's state would have to be saved, would disturb the random numbers of dropout and cannot be traced by
    `torch.compile`; hashing a counter (SplitMix64's multipliers, in wrapping int64 arithmetic) has none of these
    faults.
    """
    hashed = torch.arange(1, count + 1, device=seed.device, dtype=torch.int64) * -7046029254386353131 + seed
    for multiplier, shift in ((-4658895280553007687, 30), (-7723592293110705685, 27)):
        hashed = (hashed ^ ((hashed >> shift) & ((1 << (64 - shift)) - 1))) * multiplier
    uniform = (((hashed >> 40) & 0xFFFFFF).to(torch.float32) + 0.5) / 2**24  # in (0, 1)
    return math.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0)

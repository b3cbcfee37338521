"""Context scores `f`: how much each token of the batch counts in the context of a layer (Algorithm 1, line 8).

The paper's weights are `a = softmax(f(C))` over the tokens of the batch. A batch arrives in pieces (micro-batches,
ranks), so a piece yields the *unnormalised* weights `exp(f_i)`, and numerator and denominator of the softmax are summed
apart.

A token whose output gradient is zero took no part in the loss (padding, a masked prompt behind the last layer)
and carries no weight, whatever its score. A score depends on its own token and on what the layer remembers of earlier
steps, never on its neighbours, so documents packed into one row do not see each other (the control `shuffled` alone
deals weights across a micro-batch).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cegm.context.alignment import alignment
from cegm.options import Scores

ROUNDING = 1024
"""Units of rounding below which a gradient beside the largest of its row counts as zero: 1.2e-4. Where it is zero in real
arithmetic, up to 5.9e-5 were found at widths of 32 to 256 (benchmarks/results/first_position.json)."""

SMALLEST = 1e-18
"""Norms below this count as zero: squares of smaller numbers vanish in float32."""

NEEDS_CONTEXTS = ("attention", "alignment")
"""Scores that look at the contexts themselves; the others need the output gradients alone."""

DRAWN = ("random", "shuffled")
"""Controls that draw numbers."""

SEED_STRIDE = 1 << 40
"""Between the seeds of two forward passes of one step; steps, layers and ranks lie in between."""

ATTENTION_HEADS = 8
SHARPEST = 16.0
"""Largest score: `exp` of it, summed over any batch, stays far inside float32, so no maximum has to be known beforehand
and pieces of a batch can be summed apart."""


def reached_tokens(demands: Tensor, exclude_sink: bool = False) -> Tensor:
    """1 for tokens that carry weight, 0 for those that the loss does not reach.

    The first position's query, say, has nothing to choose from: its gradient is zero in real arithmetic and some
    rounding in floats, which must not decide whether it counts. So does what is below `ROUNDING` units of rounding
    beside the largest of its row. Rows are never split over micro-batches or ranks; tokens that come without rows are,
    so there only zero itself is zero.

    Args:
        demands: Output gradients `d_i`, shape (..., positions, outputs).
        exclude_sink: Leave out the first reached position of each row too, on which attention heads dump their
            weight (arXiv 2309.17453). Tokens that come without rows (two dimensions) have no first position, and where
            packed documents begin inside a row is not known here.

    Returns:
        Float32, shape (tokens,), rows one after the other.
    """
    largest = demands.abs().amax(dim=-1)  # (..., positions)
    reached = largest > 0
    if largest.ndim > 1:
        precision = min(torch.finfo(demands.dtype).eps, torch.finfo(torch.float32).eps)
        reached = largest > ROUNDING * precision * largest.amax(dim=-1, keepdim=True)
    if exclude_sink and reached.ndim > 1:
        reached = reached & (reached.cumsum(dim=-1) > 1)
    return reached.reshape(-1).float()


def token_weights(
    scores: Scores, contexts: Tensor | None, demands: Tensor, reached: Tensor, seed: Tensor, guide: Tensor | None
) -> Tensor:
    """Unnormalised softmax weights `exp(f_i)` of the tokens of one micro-batch.

    Args:
        scores: `uniform` (f = 0), `attention` (see `attention_weights`), `gradient` (f = log |d_i|^2, so exp(f) =
            |d_i|^2), `alignment` (see `alignment_weights`), and two controls: `random` (f standard normal) and
            `shuffled` (the weights of `gradient`, dealt to other tokens).
        contexts: Contexts `c_i` in float32, shape (tokens, inputs); only for `NEEDS_CONTEXTS`.
        demands: Output gradients `d_i` in float32, shape (tokens, outputs).
        reached: 1 where a token carries weight, else 0, shape (tokens,).
        seed: 0-D int64 tensor; decides the draw of the controls, unused otherwise.
        guide: What the layer remembers: its summary (inputs,) for `attention`, its entangled gradient (outputs,
            inputs) for `alignment`; None before the first step, when both are uniform.

    Returns:
        Weights >= 0 in float32, shape (tokens,).
    """
    if scores == "gradient":
        return reached * demands.square().sum(dim=-1)  # (tokens,)
    if scores == "random":
        return reached * counted_normal(demands.shape[0], seed).exp()
    if scores == "shuffled":
        return shuffle(demands.square().sum(dim=-1), reached, seed)
    if scores == "uniform" or guide is None:
        return reached
    assert contexts is not None
    if scores == "attention":
        return reached * attention_weights(contexts, guide)
    return reached * alignment_weights(contexts, demands, guide)


def attention_weights(contexts: Tensor, summary: Tensor) -> Tensor:
    """Multi-head attention of each context against the layer's recurrent summary, O(tokens x inputs).

    The softmax runs over tokens and heads together and a token collects what its heads received, `exp(f_i) = mean_h
    exp(f_ih)`. Queries and keys are normalised per head (arXiv 2010.04245), so `f_ih = sqrt(width) cos` is bounded.

    Args:
        contexts: Shape (tokens, inputs).
        summary: Running weighted mean of the contexts of earlier steps, shape (inputs,); zeros give weight 1 to all.

    Returns:
        Shape (tokens,).
    """
    inputs = contexts.shape[-1]
    heads = next(count for count in range(min(ATTENTION_HEADS, inputs), 0, -1) if inputs % count == 0)
    keys = F.normalize(contexts.unflatten(-1, (heads, -1)), dim=-1, eps=SMALLEST)  # (tokens, heads, width)
    queries = F.normalize(summary.unflatten(-1, (heads, -1)), dim=-1, eps=SMALLEST)  # (heads, width)
    sharpness = min(math.sqrt(inputs / heads), SHARPEST)
    return (sharpness * (keys * queries).sum(dim=-1)).exp().mean(dim=-1)


def alignment_weights(contexts: Tensor, demands: Tensor, entangled: Tensor) -> Tensor:
    """`f_i`: alignment `d_i^T G c_i` of a token's own gradient with the entangled gradient, as a cosine times `sqrt(min(m, n))`.

    The paper's A_t (section III-C) uses the bare inner product; its softmax would be flat for small gradients and a
    maximum for large ones, so the cosine between `d_i c_i^T` and `G` is taken, and scaled so that a random direction has
    scores of order one.

    Args:
        contexts: Shape (tokens, inputs).
        demands: Shape (tokens, outputs).
        entangled: `G`, shape (outputs, inputs).

    Returns:
        Shape (tokens,).
    """
    units, directions = F.normalize(contexts, dim=-1, eps=SMALLEST), F.normalize(demands, dim=-1, eps=SMALLEST)
    cosines = alignment(units, directions, F.normalize(entangled.flatten(), dim=0, eps=SMALLEST).view_as(entangled))
    return (min(math.sqrt(min(entangled.shape)), SHARPEST) * cosines).exp()


def shuffle(weights: Tensor, reached: Tensor, seed: Tensor) -> Tensor:
    """The same weights on other tokens: a permutation among the reached ones, drawn from the seed; shape (tokens,).

    Both orders list the reached tokens first, so that no shape depends on their number.
    """
    positions = torch.arange(len(weights), device=weights.device)
    beyond = torch.finfo(torch.float32).max
    drawn = torch.where(reached > 0, counted_normal(len(weights), seed), beyond).argsort()
    in_order = torch.where(reached > 0, positions, positions + len(weights)).argsort()
    return torch.zeros_like(weights).scatter(0, in_order, (reached * weights)[drawn])


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

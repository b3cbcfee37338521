import pytest
import torch

import oracle
import rounding
from cegm.context.aggregate import effective_rank, recur, weighted_gram


@pytest.mark.parametrize(("tokens", "features", "heads"), [(1, 6, 1), (7, 6, 3), (50, 12, 12), (3, 8, 2)])
def test_gram_agrees_with_loops(tokens, features, heads):
    vectors, weights = torch.randn(tokens, features), torch.rand(tokens)
    blocks = weighted_gram(vectors, weights, heads)
    assert blocks.shape == (heads, features // heads, features // heads)
    expected = oracle.context_matrix(vectors, weights.double(), heads)
    size = oracle.context_matrix(vectors.abs(), weights.double(), heads)
    rounding.agree(oracle.block_diagonal(blocks), expected, rounding.of_sum(tokens + 2, size))


def test_recurrence_agrees_with_its_sum():
    contexts = torch.randn(6, 2, 3, 3)
    aggregate = contexts[0].clone()
    for context in contexts[1:]:
        recur(aggregate, context, 0.7)
    expected = 0.7**5 * contexts[0] + sum(0.3 * 0.7 ** (5 - k) * contexts[k] for k in range(1, 6))
    rounding.agree(aggregate, expected, rounding.of_sum(2 * len(contexts), contexts.abs().amax(dim=0)))


def test_effective_rank_counts_directions():
    x = torch.randn(5)
    assert effective_rank(torch.outer(x, x)[None]) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.eye(8).reshape(1, 8, 8)) == pytest.approx(8)
    assert effective_rank(torch.eye(4).repeat(2, 1, 1)) == pytest.approx(8)
    assert effective_rank(torch.zeros(1, 3, 3)) == 0

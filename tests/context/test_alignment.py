"""Alignment scores against a loop that forms every token's gradient."""

import pytest
import torch

import rounding
from cegm.context.alignment import alignment


def by_loop(contexts, demands, entangled):
    """Each d_i c_i^T in full, in float64."""
    scores = []
    for c, d in zip(contexts.double(), demands.double(), strict=True):
        gradient = torch.outer(d, c)
        scores.append(float((gradient * entangled.double()).sum()))
    return torch.tensor(scores, dtype=torch.float64)


def bound(contexts, demands, entangled, dtype):
    """Of a sum over inputs of a sum over outputs, in either order."""
    return rounding.of_sum(sum(entangled.shape), by_loop(contexts.abs(), demands.abs(), entangled.abs()), dtype)


def drawn(tokens, outputs, inputs, dtype=torch.float32):
    return (
        torch.randn(tokens, inputs).to(dtype),
        torch.randn(tokens, outputs).to(dtype),
        torch.randn(outputs, inputs).to(dtype),
    )


SHAPES = [(50, 6, 20), (50, 20, 6), (7, 8, 8), (1, 5, 9), (300, 1, 4), (300, 4, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_loop(shape, dtype):
    contexts, demands, entangled = drawn(*shape, dtype=dtype)
    scores = alignment(contexts, demands, entangled)
    expected = by_loop(contexts, demands, entangled)
    assert scores.shape == (shape[0],)
    assert scores.dtype == dtype
    rounding.agree(scores, expected, bound(contexts, demands, entangled, dtype))


def test_bfloat16_is_computed_in_float32():
    contexts, demands, entangled = drawn(40, 12, 30, dtype=torch.bfloat16)
    scores = alignment(contexts, demands, entangled)
    assert scores.dtype == torch.float32
    expected = by_loop(contexts, demands, entangled)
    rounding.agree(scores, expected, bound(contexts, demands, entangled, torch.float32))


def test_the_most_precise_input_decides():
    contexts, demands, entangled = drawn(5, 3, 4)
    assert alignment(contexts, demands, entangled.double()).dtype == torch.float64
    assert alignment(contexts.bfloat16(), demands, entangled).dtype == torch.float32


def test_sum_over_tokens_is_the_inner_product_with_the_gradient():
    contexts, demands, entangled = drawn(64, 9, 13, dtype=torch.float64)
    gradient = demands.T @ contexts
    torch.testing.assert_close(alignment(contexts, demands, entangled).sum(), (gradient * entangled).sum())


def test_gradient_against_itself_is_its_squared_norm():
    contexts, demands, _ = drawn(64, 9, 13, dtype=torch.float64)
    gradient = demands.T @ contexts
    torch.testing.assert_close(alignment(contexts, demands, gradient).sum(), gradient.square().sum())


def test_rank_one_entangled_gradient_is_a_product_of_two_projections():
    contexts, demands, _ = drawn(20, 6, 8, dtype=torch.float64)
    left, right = torch.randn(6, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    expected = (demands @ left) * (contexts @ right)
    torch.testing.assert_close(alignment(contexts, demands, torch.outer(left, right)), expected)


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_zeros_give_zero(zero):
    given = list(drawn(5, 3, 4))
    given[zero] = torch.zeros_like(given[zero])
    assert alignment(*given).tolist() == [0.0] * 5


def test_no_tokens_give_no_scores():
    contexts, demands, entangled = drawn(0, 3, 4)
    assert alignment(contexts, demands, entangled).shape == (0,)


def test_order_of_tokens_does_not_matter():
    contexts, demands, entangled = drawn(30, 5, 7, dtype=torch.float64)
    order = torch.randperm(30)
    torch.testing.assert_close(
        alignment(contexts[order], demands[order], entangled), alignment(contexts, demands, entangled)[order]
    )

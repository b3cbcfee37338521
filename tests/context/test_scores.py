import math

import pytest
import torch

import oracle
from cegm.context.scores import counted_normal, token_weights

SEED = torch.tensor(7)


@pytest.mark.parametrize("scores", ["uniform", "gradient"])
def test_weights_are_the_softmax_of_the_scores(scores):
    demands = torch.randn(9, 5)
    demands[2] = 0
    weights = token_weights(scores, demands, SEED)
    assert torch.allclose((weights / weights.sum()).double(), oracle.weights_of_tokens(scores, demands), atol=1e-6)


@pytest.mark.parametrize("scores", ["uniform", "gradient", "random"])
def test_a_token_without_demand_carries_no_weight(scores):
    demands = torch.randn(6, 3)
    demands[[0, 4]] = 0
    weights = token_weights(scores, demands, SEED)
    assert weights[[0, 4]].tolist() == [0, 0]
    assert (weights[[1, 2, 3, 5]] > 0).all()


def test_gradient_weights_do_not_depend_on_the_loss_scale():
    demands = torch.randn(20, 4)
    one, scaled = token_weights("gradient", demands, SEED), token_weights("gradient", demands * 2**16, SEED)
    assert torch.equal(one / one.sum(), scaled / scaled.sum())


def test_counted_normal_is_standard_normal_and_a_function_of_the_seed():
    draws = counted_normal(200_000, SEED)
    assert abs(float(draws.mean())) < 5 / math.sqrt(200_000)
    assert abs(float(draws.var()) - 1) < 5 * math.sqrt(2 / 200_000)
    assert abs(float((draws[1:] * draws[:-1]).mean())) < 5 / math.sqrt(200_000)
    assert torch.equal(draws, counted_normal(200_000, SEED))
    other = counted_normal(200_000, torch.tensor(8))
    assert abs(float((draws * other).mean())) < 5 / math.sqrt(200_000)
    assert draws.isfinite().all()

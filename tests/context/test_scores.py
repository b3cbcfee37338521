import math

import pytest
import torch

import oracle
import rounding
from cegm.context.scores import attention_weights, counted_normal, reached_tokens, token_weights
from cegm.options import OPTIONS

SEED = torch.tensor(7)


def weights_of(scores, demands, contexts=None, guide=None, exclude_sink=False, seed=SEED):
    """Weights of tokens that come without rows, or as (rows, positions, ...)."""
    reached = reached_tokens(demands, exclude_sink)
    contexts = None if contexts is None else contexts.flatten(0, -2)
    return token_weights(scores, contexts, demands.flatten(0, -2), reached, seed, guide)


def guide_of(scores, inputs, outputs):
    return {"attention": torch.randn(inputs), "alignment": torch.randn(outputs, inputs)}.get(scores)


SHAPES = [(9, 5, 4), (9, 4, 5), (9, 1, 7), (1, 6, 16), (7, 3, 24)]


@pytest.mark.parametrize("scores", ["uniform", "gradient", "attention", "alignment"])
@pytest.mark.parametrize(("tokens", "outputs", "inputs"), SHAPES)
def test_weights_are_the_softmax_of_the_scores(scores, tokens, outputs, inputs):
    demands, contexts, guide = (
        torch.randn(tokens, outputs),
        torch.randn(tokens, inputs),
        guide_of(scores, inputs, outputs),
    )
    if tokens > 2:
        demands[2] = 0
    weights = weights_of(scores, demands, contexts, guide)
    expected = oracle.weights_of_tokens(scores, demands, contexts, guide)
    rounding.agree(weights / weights.sum(), expected, rounding.of_sum(4 * (outputs + inputs) + tokens, expected))


@pytest.mark.parametrize("scores", ["attention", "alignment"])
def test_contexts_and_demands_of_zeros_or_huge_ones_stay_finite(scores):
    for size in (0.0, 1e-30, 1e18):
        demands, contexts = torch.ones(4, 3), size * torch.randn(4, 8)
        weights = weights_of(
            scores, demands, contexts, size * torch.randn(8) if scores == "attention" else torch.ones(3, 8)
        )
        assert weights.isfinite().all()
        assert (weights > 0).all()


@pytest.mark.parametrize("scores", ["attention", "alignment"])
def test_without_a_guide_all_tokens_count_alike(scores):
    demands = torch.randn(6, 3)
    assert torch.equal(weights_of(scores, demands, torch.randn(6, 4), None), torch.ones(6))


@pytest.mark.parametrize("scores", ["attention", "alignment"])
def test_pieces_of_a_batch_weigh_as_the_whole(scores):
    """Nothing in a weight depends on the other tokens, so documents in one row and micro-batches cannot leak."""
    demands, contexts, guide = torch.randn(12, 6), torch.randn(12, 8), guide_of(scores, 8, 6)
    whole = weights_of(scores, demands, contexts, guide)
    pieces = [weights_of(scores, d, c, guide) for d, c in zip(demands.split(5), contexts.split(5), strict=True)]
    bound = rounding.of_sum(6 + 8, whole)
    rounding.agree(torch.cat(pieces), whole, bound)
    contexts[6:], demands[6:] = torch.randn(6, 8), torch.randn(6, 6)
    rounding.agree(weights_of(scores, demands, contexts, guide)[:6], whole[:6], bound[:6])


def test_attention_prefers_what_resembles_the_summary_head_by_head():
    summary = torch.ones(16)
    like, opposite = torch.ones(16), -torch.ones(16)
    half = torch.cat([torch.ones(8), -torch.ones(8)])
    weights = attention_weights(torch.stack([like, opposite, half]), summary)  # eight heads of width two
    sharp = math.exp(math.sqrt(2))
    assert torch.allclose(weights, torch.tensor([sharp, 1 / sharp, (sharp + 1 / sharp) / 2]), rtol=1e-5)


def test_rounding_around_zero_does_not_reach_a_token():
    demands = torch.randn(3, 6, 4)
    clean = demands.clone()
    clean[:, 0] = 0
    for noise in (0.0, 1e-12, 5.9e-5 / 4):  # normal numbers
        demands[:, 0] = noise * torch.randn(3, 4)
        assert torch.equal(reached_tokens(demands), reached_tokens(clean))
    demands[:, 0] = 1e-3  # small, and no rounding
    assert reached_tokens(demands).all()
    assert reached_tokens(1e-20 * demands).all()


def test_whether_a_token_counts_hangs_on_its_own_row_alone():
    demands = torch.randn(4, 5, 3) * torch.tensor([1e-9, 1.0, 1e6, 1e-3])[:, None, None]
    demands[:, 0] *= 1e-9
    together = reached_tokens(demands)
    assert torch.equal(together, torch.cat([reached_tokens(row[None]) for row in demands]))
    loose = demands.flatten(0, 1)
    assert torch.equal(reached_tokens(loose), torch.cat([reached_tokens(token[None]) for token in loose]))


def test_the_sink_is_the_first_reached_position_of_each_row():
    demands = torch.ones(2, 4, 3)
    demands[1, :2] = 0  # padding on the left
    assert weights_of("uniform", demands, exclude_sink=True).tolist() == [0, 1, 1, 1, 0, 0, 0, 1]
    assert weights_of("uniform", demands[0], exclude_sink=True).tolist() == [1, 1, 1, 1]  # no rows, no first position


@pytest.mark.parametrize("scores", OPTIONS["scores"].choices)
def test_a_token_without_demand_carries_no_weight(scores):
    demands = torch.randn(6, 3)
    demands[[0, 4]] = 0
    weights = weights_of(scores, demands, torch.randn(6, 5), guide_of(scores, 5, 3))
    assert weights[[0, 4]].tolist() == [0, 0]
    assert (weights[[1, 2, 3, 5]] > 0).all()


def test_shuffled_weights_are_the_gradient_weights_on_other_tokens():
    demands = torch.randn(4000, 3)
    demands[::7] = 0
    gradient, shuffled = weights_of("gradient", demands), weights_of("shuffled", demands)
    assert torch.equal(gradient.sort().values, shuffled.sort().values)
    reached = gradient > 0
    correlation = torch.corrcoef(torch.stack([gradient[reached], shuffled[reached]]))[0, 1]
    assert abs(float(correlation)) < 5 / math.sqrt(int(reached.sum()))
    assert torch.equal(shuffled, weights_of("shuffled", demands))
    assert not torch.equal(shuffled, weights_of("shuffled", demands, seed=torch.tensor(8)))


def test_gradient_weights_do_not_depend_on_the_loss_scale():
    demands = torch.randn(20, 4)
    one, scaled = weights_of("gradient", demands), weights_of("gradient", demands * 2**16)
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

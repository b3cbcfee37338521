"""A learner takes the steps of a run: strength and clipping as they are called, and copies that stand on their own."""

import copy

import pytest
import torch

for extra in ("trl", "statsmodels"):
    pytest.importorskip(extra)

from cegm.lab.compare.compare_config import CompareConfig  # noqa: E402
from cegm.lab.compare.learner import Learner  # noqa: E402
from cegm.lab.train.model import load_tokenizer, model_of_width  # noqa: E402

TOKENS = torch.arange(8).reshape(2, 4)


def learner(method="cegm", **changes):
    run = CompareConfig(methods=method).run(method, 0, **changes)
    return Learner(run, model_of_width(run, load_tokenizer(run), 16))


def norm(one):
    return torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in one.model.parameters() if p.grad is not None]))


def test_strength_multiplies_the_gradient_and_not_the_loss():
    usual, strong = learner(max_grad_norm=0), learner(max_grad_norm=0)
    loss, found = usual.gradients([TOKENS])
    other, stronger = strong.gradients([TOKENS], 1000.0)
    assert other == loss
    torch.testing.assert_close(found, norm(usual))
    torch.testing.assert_close(stronger, 1000 * found)
    torch.testing.assert_close(norm(strong), stronger)


def test_clipping_comes_after_the_strength_and_the_norm_told_is_that_before():
    usual, strong = learner(max_grad_norm=0.01), learner(max_grad_norm=0.01)
    found, stronger = usual.gradients([TOKENS])[1], strong.gradients([TOKENS], 1000.0)[1]
    torch.testing.assert_close(stronger, 1000 * found)
    for one in (usual, strong):
        assert float(norm(one)) == pytest.approx(0.01, rel=1e-3)


def test_clipping_before_a_normalised_first_step_hides_the_strength_of_its_gradient():
    """The very first step of Muon is the same whatever its gradient is multiplied by."""
    losses = []
    for strength in (1.0, 1000.0):
        one = learner("muon", max_grad_norm=1.0)
        one.update(one.gradients([TOKENS], strength)[0])
        losses.append(one.gradients([TOKENS])[0])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=0)


def test_micro_batches_are_averaged():
    once, parts = learner(max_grad_norm=0), learner(max_grad_norm=0)
    loss, found = once.gradients([TOKENS])
    other, same = parts.gradients([TOKENS[:1], TOKENS[1:]])
    torch.testing.assert_close(other, loss)
    torch.testing.assert_close(same, found)


@pytest.mark.parametrize("changes", [{}, {"beta": 0.1}, {"gradient_checkpointing": True}])
def test_a_copy_goes_on_as_the_original_would_and_leaves_it_alone(changes):
    one = learner(**changes)
    for _ in range(3):
        one.update(one.gradients([TOKENS])[0])
    before = [p.detach().clone() for p in one.model.parameters()]
    twin = copy.deepcopy(one)
    ahead = []
    for _ in range(3):
        ahead.append(twin.gradients([TOKENS])[0])
        twin.update(ahead[-1])
    assert all(torch.equal(p, q) for p, q in zip(one.model.parameters(), before, strict=True))
    for loss in ahead:
        assert torch.equal(one.gradients([TOKENS])[0], loss)
        one.update(loss)


def test_a_controller_is_told_the_loss():
    one, told = learner(), []
    one.optimizer.observe_loss = told.append
    loss, _ = one.gradients([TOKENS])
    one.update(loss)
    assert told == [loss]

"""A learner takes the steps of a run: strength, clipping, copies that stand on their own, blocks in turns, memory to the byte."""

import copy
import subprocess
import sys

import pytest
import torch

for extra in ("trl", "statsmodels"):
    pytest.importorskip(extra)

from cegm.lab.compare.compare_config import CompareConfig  # noqa: E402
from cegm.lab.compare.learner import BLOCK, Learner, Timed, in_turns, peak_bytes  # noqa: E402
from cegm.lab.compare.seed_statistics import paired_ratio  # noqa: E402
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


def timed(method="cegm", **changes):
    run = CompareConfig(methods=method).run(method, 0, **changes)
    return Timed(run, model_of_width(run, load_tokenizer(run), 16), TOKENS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"beta": 0.1},
        {"gradient_accumulation_steps": 2},
        {"bf16": True, "max_grad_norm": 0},
        {"gradient_checkpointing": True},
    ],
)
def test_a_timed_block_trains(changes):
    trains(timed(**changes))


def test_a_timed_block_trains_adapters(tmp_path):
    run = CompareConfig(methods="cegm").run("cegm", 0)
    tokenizer = load_tokenizer(run)
    for part in (model_of_width(run, tokenizer, 16), tokenizer):
        part.save_pretrained(tmp_path)
    trains(timed(model_name_or_path=str(tmp_path), lora_r=2))


def trains(one):
    before = [p.detach().clone() for p in one.model.parameters()]
    assert one.block(3) > 0
    after = list(one.model.parameters())
    assert any(not (p == q).all() for p, q in zip(after, before, strict=True))
    assert all(torch.isfinite(p).all() for p in after)


def test_micro_batches_share_a_step():
    once, twice = timed("adamw", max_grad_norm=0), timed("adamw", max_grad_norm=0, gradient_accumulation_steps=2)
    once.block(1)
    twice.block(1)  # the same batch twice, averaged
    for p, q in zip(once.model.parameters(), twice.model.parameters(), strict=True):
        torch.testing.assert_close(p, q)


class Drifting:
    """Takes its own time per step, on a machine that slows down with every block."""

    blocks = 0

    def __init__(self, seconds, order):
        self.seconds, self.order = seconds, order

    def block(self, steps):
        self.order.append(self.seconds)
        Drifting.blocks += 1
        return steps * self.seconds * 1.05**Drifting.blocks


def test_a_drift_of_the_machine_favours_nobody():
    order = []
    passes = list(in_turns([Drifting(seconds, order) for seconds in (1.0, 2.0, 4.0)], rounds=2, steps=25))
    assert order == [1.0, 2.0, 4.0, 4.0, 2.0, 1.0] * 2
    first, second, third = zip(*passes, strict=True)
    assert paired_ratio(second, first).estimate == pytest.approx(2.0)
    assert paired_ratio(third, first).estimate == pytest.approx(4.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts the tensors of the GPU then")
def test_peak_memory_is_exact_and_repeats():
    def work():
        kept = torch.zeros(1000)
        torch.zeros(3000)  # gone at once
        return kept, torch.zeros(500)

    tensors, peak = peak_bytes(work)
    assert peak == 4 * (1000 + 3000)
    assert tensors[0].shape == (1000,)
    assert peak_bytes(work)[1] == peak
    assert peak_bytes(lambda: None) == (None, 0)


def test_counting_memory_says_nothing():
    """In a process of its own: torch's profiler reads how much it shall say when it is used first, by whomever."""
    code = "import torch; from cegm.lab.compare.learner import peak_bytes; peak_bytes(lambda: torch.zeros(3))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_a_block_is_a_refresh_of_the_preset():
    from cegm.options import resolve

    assert resolve("recommended", {})["refresh_every"] == BLOCK

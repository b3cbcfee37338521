"""What each kernel of line 7 makes of gradients: measured from the answer to one gradient, not from its own numbers."""

import copy
import math

import pytest
import torch
from torch import nn

import models
from cegm import CEGM
from cegm.assignment import assign_without_model
from cegm.lab.baselines import build_optimizer
from cegm.momentum import AGES, LAST_POWER, entangle, running_means

KERNELS = tuple(AGES)
LONG = [kernel for kernel in KERNELS if kernel != "ema"]


def answer(kernel, coefficient, steps=700, begun=0, period=10**9):
    """`G_t` after one gradient of ones and then zeros: how much of it is left at each age, (steps,)."""
    parameter = torch.zeros(2, 2, dtype=torch.float64)
    matrices = assign_without_model("layer", parameter).matrices()
    states = {parameter: {"momentum": torch.zeros_like(parameter)}}
    group = {"momentum_kernel": kernel, "entanglement": coefficient, "coefficient_period": period, "nesterov": False}
    left = []
    for step in range(steps):
        gradient = torch.full((1, 2, 2), float(step == 0), dtype=torch.float64)
        left.append(entangle(states, gradient, matrices, {**group, "steps": begun + step})[0, 0, 0])
    return torch.stack(left)


def mean_age(left):
    return float((left * torch.arange(len(left))).sum() / left.sum())


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_of_all_ages_add_up_to_one_and_the_newest_weighs_most(kernel):
    left = answer(kernel, 0.25)
    assert float(left.sum()) == pytest.approx(1.0, abs=1e-6)
    assert (left.diff() < 0).all()


@pytest.mark.parametrize(("kernel", "times"), [("ema", 1.0), ("two", 1.8), ("log", 10 / 3)])
def test_mean_ages_are_those_of_the_table(kernel, times):
    assert mean_age(answer(kernel, 0.2)) == pytest.approx(times * 4, rel=1e-3)
    assert mean_age(answer(kernel, 0.5)) == pytest.approx(times, rel=1e-3)


def test_two_running_means_let_as_much_noise_through_as_one():
    ratio = float(answer("two", 0.05).square().sum() / answer("ema", 0.05).square().sum())
    assert ratio == pytest.approx(1.0, abs=0.025)  # exactly where the coefficient is small


def test_the_mean_age_of_log_falls_in_a_straight_line_and_then_stays():
    found = [mean_age(answer("log", 0.2, begun=begun, period=100)) / 4 for begun in (0, 25, 50, 100, 10_000)]
    first, last = 10 / 3, math.sqrt(3)
    assert found == pytest.approx([first, first + (last - first) / 4, (first + last) / 2, last, last], rel=1e-3)


def test_log_is_a_power_law_between_its_shortest_and_longest_age():
    """It goes from the inverse of the age to its power -3/2."""
    for passed, power in ((0, -1.0), (1, -1.5)):
        left = answer("log", 0.02, 400, begun=passed * 10**9)  # ages 16 to 441
        slopes = [math.log(left[4 * age] / left[age]) / math.log(4) for age in (20, 40, 80)]
        assert sum(slopes) / 3 == pytest.approx(power, abs=0.3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_with_a_coefficient_of_one_the_newest_gradient_is_all_there_is(kernel):
    left = answer(kernel, 1.0, 3)
    assert left.tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-15)


def test_running_means_of_a_group():
    group = {"momentum_kernel": "ema", "entanglement": 0.05, "steps": 7, "coefficient_period": 10}
    assert running_means(group) == [pytest.approx((0.05, 1.0))]
    two = running_means({**group, "momentum_kernel": "two"})
    assert [1 / mean.rate - 1 for mean in two] == pytest.approx([19 / 3, 57])


@pytest.mark.parametrize("kernel", LONG)
@pytest.mark.parametrize("method", ["cegm", "muon", "normuon"])
def test_a_run_resumes_to_the_bit(method, kernel):
    model, data = models.llama(), models.batches(8)
    options = {"lr": 1e-2, "momentum_kernel": kernel, "coefficient_period": 6}
    optimizer = build_optimizer(method, model, **options)
    models.train(model, optimizer, data[:4])
    twin = copy.deepcopy(model)
    resumed = build_optimizer(method, twin, **options)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert models.train(model, optimizer, data[4:]) == models.train(twin, resumed, data[4:])
    assert models.weights_equal(model, twin)


def test_a_checkpoint_of_another_kernel_goes_on_with_its_own():
    model, data = models.llama(), models.batches(4)
    optimizer = build_optimizer("cegm", model, lr=1e-2, momentum_kernel="two")
    models.train(model, optimizer, data[:2])
    fresh = CEGM(copy.deepcopy(model), lr=1e-2)
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.param_groups[0]["momentum_kernel"] == "two"


def test_shares_of_older_running_means_are_kept_in_float32():
    """In bfloat16 a gradient that stays as it is would not reach them: a step of 1 / 28 of a small rest is less than it tells."""
    layer = nn.Linear(4, 4, bias=False, dtype=torch.bfloat16)
    optimizer = CEGM(nn.Sequential(layer), lr=0.0, gradient_power=0.0, momentum_kernel="two", nesterov=False)
    for _ in range(400):
        layer.weight.grad = torch.ones(4, 4, dtype=torch.bfloat16)
        optimizer.step()
    state = optimizer.state[layer.weight]
    assert (state["momentum"].dtype, state["momentum_1"].dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(state["momentum_1"], torch.full((4, 4), 0.55))
    torch.testing.assert_close(state["momentum"].float(), torch.ones(4, 4), rtol=0.02, atol=0)


def test_diagnostics_look_ahead_as_the_step_did():
    model = nn.Sequential(nn.Linear(6, 8, bias=False))
    optimizer = CEGM(model, lr=0.01, power=0, gradient_power=0, row_moment=False, weight_decay=0, momentum_kernel="two")
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(9, 6)).square().sum().backward()
        before = model[0].weight.detach().clone()
        optimizer.step()
    moved = model[0].weight.detach() - before
    energies = torch.linalg.svdvals(moved.double()).square()
    expected = float(energies.sum() ** 2 / energies.square().sum())
    assert optimizer.diagnostics()["0"]["update_rank"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("step", "bound"), [(3.0, 0.0041), (2.0, 0.000034)])
@pytest.mark.parametrize("power", [0.0, LAST_POWER])
def test_an_endless_row_of_ages_holds_a_power_law_as_closely_as_the_page_says(step, bound, power):
    """`j^(1 - u) sum_k a_k^(u - 1) e^(-j / a_k)` is constant but for a ripple, the same in every octave of `j / a`."""
    ages = step ** torch.arange(-40, 40, dtype=torch.float64)
    times = step ** torch.linspace(0, 1, 200, dtype=torch.float64)[:, None] / ages
    sums = (times ** (1 - power) * (-times).exp()).sum(1)
    assert float(sums.max() - sums.min()) / 2 < bound * float(sums.mean())

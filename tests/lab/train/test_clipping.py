"""Clipping stalls an update where its gradient falls below `eps`, nowhere else; the warnings say so, and once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from cegm.lab.baselines import build_optimizer
from cegm.lab.train.clipping import PERSISTENT, ClipWatch, policy, starving

CASES = [("cegm", 1e-5, 2e-13), ("muon", 1e-5, 2e-13), ("adamw", 8e-6, 8e-10)]
"""Gradient norms of an 8 x 8 matrix above and below the one where its update begins to shrink: about 1e-7 / 485 where matrices are
normalised whole by the polar iteration, and entries of 1e-8 in AdamW."""


def stepped(method: str, norm: float, **options: Any) -> tuple[Any, torch.Tensor]:
    """An optimizer after one step with a gradient of this norm, and how far the weights went."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8, bias=False))
    optimizer = build_optimizer(method, model, lr=0.01, weight_decay=0.0, **options)
    before = model[0].weight.detach().clone()
    gradient = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)).sign()
    model[0].weight.grad = gradient * (norm / 8)
    optimizer.step()
    return optimizer, model[0].weight.detach() - before


@pytest.mark.filterwarnings("ignore:0.weight has a gradient")
@pytest.mark.parametrize(("method", "enough", "starved"), CASES)
def test_a_clip_factor_changes_nothing_until_the_gradient_falls_below_eps(
    method: str, enough: float, starved: float
) -> None:
    _, full = stepped(method, 100.0)
    optimizer, clipped = stepped(method, enough)
    assert torch.allclose(clipped, full, rtol=0.02, atol=1e-6)
    assert starving(optimizer.param_groups) == []
    optimizer, stalled = stepped(method, starved)
    assert float(stalled.norm()) < 0.1 * float(full.norm())
    assert [tuple(p.shape) for p in starving(optimizer.param_groups)] == [(8, 8)]


@pytest.mark.filterwarnings("ignore:0.weight has a gradient")
@pytest.mark.parametrize("normalize", ["spectral", "frobenius"])
def test_norms_without_iteration_shrink_from_eps_on(normalize: str) -> None:
    _, full = stepped("cegm", 100.0, normalize=normalize)
    optimizer, stalled = stepped("cegm", 1e-8, normalize=normalize)
    assert float(stalled.norm()) < 0.1 * float(full.norm())
    assert len(starving(optimizer.param_groups)) == 1


@pytest.mark.filterwarnings("ignore:0.weight has a gradient")
def test_an_update_that_is_not_normalised_cannot_starve() -> None:
    optimizer, _ = stepped("cegm", 1e-30, normalize="none")
    assert starving(optimizer.param_groups) == []


@pytest.mark.filterwarnings("ignore:0.weight has a gradient")
def test_the_warning_about_starving_names_weight_factor_and_remedy_once() -> None:
    optimizer, _ = stepped("cegm", 1e-13)
    watch = ClipWatch()
    told = watch.check(1e-9, 1.0, optimizer.param_groups)
    assert told is not None
    assert "1.0e-09" in told
    assert "1 weights, the first of shape 8x8" in told
    assert "max_grad_norm" in told
    assert "\n" not in told
    assert watch.check(1e-9, 1.0, optimizer.param_groups) is None


@pytest.fixture
def calm() -> Callable[[float], str | None]:
    """A watch over gradients far above any `eps`."""
    optimizer, _ = stepped("adamw", 1.0)
    watch = ClipWatch()
    return lambda factor: watch.check(factor, 1 / factor, optimizer.param_groups)


def test_lasting_hard_clipping_is_told_once_after_fifty_steps(calm: Callable[[float], str | None]) -> None:
    told = [calm(0.005) for _ in range(2 * PERSISTENT)]
    assert [index for index, each in enumerate(told) if each is not None] == [PERSISTENT - 1]
    assert "5.0e-03" in str(told[PERSISTENT - 1])


def test_one_step_that_is_not_clipped_begins_the_count_anew(calm: Callable[[float], str | None]) -> None:
    told = [calm(0.005) for _ in range(PERSISTENT - 1)] + [calm(1.0)] + [calm(0.005) for _ in range(PERSISTENT - 1)]
    assert told == [None] * (2 * PERSISTENT - 1)
    assert calm(0.005) is not None


def test_usual_clipping_says_nothing(calm: Callable[[float], str | None]) -> None:
    assert {calm(0.1) for _ in range(2 * PERSISTENT)} == {None}


def test_the_policy_in_words() -> None:
    assert policy(0.0).startswith("none")
    assert "to norm 0.5" in policy(0.5)

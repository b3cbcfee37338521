"""Threads go to cores that nobody uses, and bfloat16 is taken where it is fast; what was asked for, or begun with, wins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from cegm.lab.train import resources
from cegm.lab.train.run_config import RunConfig

TRAINED = "some/model"


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(resources.os, "cpu_count", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def busy(monkeypatch: pytest.MonkeyPatch, percent: float) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: percent)


def resumed(**config: Any) -> Any:
    return SimpleNamespace(state=SimpleNamespace(config=config))


@pytest.mark.parametrize(("percent", "threads"), [(0, 2), (20, 2), (50, 1), (100, 1)])
def test_a_run_takes_threads_that_find_a_core(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], percent: float, threads: int
) -> None:
    busy(monkeypatch, percent)
    assert resources.with_threads(RunConfig(TRAINED), None).threads == threads == torch.get_num_threads()
    told = capsys.readouterr().err
    assert told.startswith(f"cegm: {threads} of 2 threads") if threads < 2 else told == ""


def test_threads_that_were_asked_for_or_begun_with_win(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    busy(monkeypatch, 100)
    assert resources.with_threads(RunConfig(TRAINED, threads=2), resumed(threads=1)).threads == 2
    assert resources.with_threads(RunConfig(TRAINED), resumed(threads=2)).threads == 2
    assert (
        resources.with_threads(RunConfig(TRAINED), resumed(threads=0)).threads == 1
    )  # of before a run wrote them down
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    capsys.readouterr()
    assert resources.with_threads(RunConfig(TRAINED), None).threads == 2
    assert capsys.readouterr().err == ""


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    monkeypatch.setattr(resources, "LARGE", 10)
    return nn.Linear(4, 3)


def trial(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(resources, "bfloat16_share", lambda: share)


@pytest.mark.parametrize(("share", "taken"), [(0.4, True), (0.9, False), (3.0, False)])
def test_a_trial_decides_for_large_trained_models_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], large: nn.Module, share: float, taken: bool
) -> None:
    trial(monkeypatch, share)
    assert resources.with_precision(RunConfig(TRAINED), large, None).bf16 is taken
    told = capsys.readouterr().err
    assert told.startswith(f"cegm: passes in {'bfloat16' if taken else 'float32'}")
    assert f"{share:.2f} times as long" in told


@pytest.mark.parametrize(
    ("config", "resumption", "expected"),
    [
        (RunConfig(TRAINED, bf16=True), None, True),
        (RunConfig(TRAINED, bf16=False), None, False),
        (RunConfig("tiny"), None, False),
        (RunConfig(TRAINED), resumed(bf16=True), True),
        (RunConfig(TRAINED), resumed(bf16=False), False),
    ],
    ids=["asked for", "refused", "fresh", "begun with", "begun without"],
)
def test_no_trial_where_the_precision_is_settled(
    monkeypatch: pytest.MonkeyPatch, large: nn.Module, config: RunConfig, resumption: Any, expected: bool
) -> None:
    trial(monkeypatch, 3.0 if expected else 0.1)
    assert resources.with_precision(config, large, resumption).bf16 is expected


def test_small_models_and_processes_that_must_agree_have_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    trial(monkeypatch, 0.1)
    assert resources.with_precision(RunConfig(TRAINED), nn.Linear(4, 3), None).bf16 is False
    monkeypatch.setattr(resources, "LARGE", 10)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert resources.with_precision(RunConfig(TRAINED), nn.Linear(4, 3), None).bf16 is False


def test_a_trial_draws_nothing_and_leaves_no_gradients() -> None:
    before = torch.get_rng_state()
    assert resources.bfloat16_share() > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_writes_down_what_it_took_and_its_rest_takes_the_same(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from cegm.lab.train.folder import RunFolder
    from cegm.lab.train.resume import find
    from cegm.lab.train.run import train

    busy(monkeypatch, 100)
    config = run_config(threads=0, max_steps=2, save_steps=1)
    train(config)
    resuming = run_config(threads=0, max_steps=2, save_steps=1, resume_from_checkpoint="latest")
    state = find(resuming, RunFolder.of(resuming)).state.config
    assert (state["threads"], state["bf16"]) == (1, False)

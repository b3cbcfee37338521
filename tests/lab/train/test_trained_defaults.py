"""Going on from trained weights with nothing but defaults: no method's loss may rise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cegm.lab.baselines import METHODS
from cegm.lab.train.run import train
from cegm.lab.train.run_config import RunConfig

ROUNDING = 1e-3
"""What a validation loss may rise by luck, nats per token; a tenth of what was tolerated when the defaults were chosen."""

SIZES: dict[str, Any] = {
    "max_length": 32, "per_device_train_batch_size": 4, "eval_steps": 0, "eval_rows": 16, "logging_steps": 0, "threads": 1, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(model_folder: str, text_file: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that has learnt the text as far as a short schedule goes."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    summary = train(
        RunConfig(
            model_folder, text_file, "adamw", str(folder), max_steps=200, learning_rate=1e-2, warmup_steps=10, **SIZES
        )
    )
    assert summary.loss < 1.5  # of 5.6 at random
    return str(folder / "model")


@pytest.fixture
def go_on(trained: str, text_file: str, tmp_path: Path) -> Callable[..., list[float]]:
    """Validation loss before and after a run from the trained model; anything given wins over the defaults."""

    def losses(**given: Any) -> list[float]:
        train(RunConfig(trained, text_file, output_dir=str(tmp_path / "run"), **{**SIZES, "max_steps": 5, **given}))
        lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [line["loss"] for line in map(json.loads, lines) if line["kind"] == "validation"]

    return losses


@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("method", METHODS)
def test_five_steps_of_defaults_raise_no_loss(go_on: Callable[..., list[float]], method: str, rank: int) -> None:
    before, after = go_on(method=method, lora_r=rank)
    assert after <= before + ROUNDING


@pytest.mark.parametrize("method", ["adamw", "soap", "cegm"])
def test_nor_do_eighty(go_on: Callable[..., list[float]], method: str) -> None:
    before, after = go_on(method=method, max_steps=80)
    assert after <= before + ROUNDING


def test_the_rate_of_fresh_models_would(go_on: Callable[..., list[float]]) -> None:
    before, after = go_on(method="adamw", learning_rate=METHODS["adamw"].rates.fresh, warmup_steps=0)
    assert after > before + 0.01


def test_what_was_resolved_is_written_down_and_told(
    go_on: Callable[..., list[float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on(method="cegm")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))["config"]
    assert (config["learning_rate"], config["aux_lr"]) == (
        METHODS["cegm"].rates.trained,
        METHODS["adamw"].rates.trained,
    )
    assert (config["weight_decay"], config["warmup_steps"]) == (0.0, 10)
    assert capsys.readouterr().out == RunConfig(str(tmp_path), method="cegm").pace + "\n"

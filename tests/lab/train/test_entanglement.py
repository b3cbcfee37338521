"""Runs with the entanglement loss: what is logged, that accumulation is exact, and that beta = 0 changes nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cegm import loss as loss_module
from cegm.lab.train.run import train
from cegm.lab.train.run_config import RunConfig

Make = Callable[..., RunConfig]


def logged(folder: Path, kind: str) -> list[float]:
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["kind"] == kind]


def test_training_logs_the_total_and_validation_plain_cross_entropy(run_config: Make, tmp_path: Path) -> None:
    first: list[float] = []
    validated = set()
    for beta in (0.0, 0.5, 1.0):
        folder = tmp_path / str(beta)
        train(run_config(beta=beta, kernel="rbf", max_steps=1, output_dir=str(folder)))
        first += logged(folder, "train")
        validated.add(logged(folder, "validation")[0])
    assert len(validated) == 1
    similarity = first[2] - first[0]
    assert first[1] - first[0] == pytest.approx(similarity / 2, rel=1e-4)
    assert torch.tensor(-2.0).exp() < similarity < 1  # the mean of exp(cos - 1)


def test_beta_zero_is_the_run_without_the_loss(
    run_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = train(run_config(max_steps=2, output_dir=str(tmp_path / "plain")))
    monkeypatch.setattr(loss_module.EntanglementLoss, "for_model", None)
    zero = train(run_config(max_steps=2, beta=0.0, kernel="dot", stop_gradient="context"))
    assert zero.final_hash == wanted.final_hash


def test_a_vanishing_beta_is_cross_entropy_but_for_rounding(run_config: Make, tmp_path: Path) -> None:
    """The two are computed along different ways: hook and chunks here, the model's own logits there."""
    folders = {beta: tmp_path / str(beta) for beta in (0.0, 1e-7)}
    for beta, folder in folders.items():
        train(run_config(max_steps=4, beta=beta, output_dir=str(folder)))
    for kind in ("train", "validation"):
        assert logged(folders[1e-7], kind) == pytest.approx(logged(folders[0.0], kind), rel=1e-5)


def test_accumulation_and_padding_change_nothing_but_rounding(run_config: Make, tmp_path: Path) -> None:
    rows = [{"prompt": f"question {index}: ", "completion": "answer " * (index % 4 + 1)} for index in range(40)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, batch, steps in (("whole", 4, 1), ("parts", 1, 4)):
        sizes: dict[str, Any] = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        train(
            run_config(**sizes, data=str(path), max_length=48, max_steps=3, beta=0.5, output_dir=str(tmp_path / name))
        )
    assert logged(tmp_path / "parts", "train") == pytest.approx(logged(tmp_path / "whole", "train"), rel=1e-5)


@pytest.mark.parametrize("given", [{"lora_r": 2}, {"gradient_checkpointing": True}, {"bf16": True}, {"method": "cegm"}])
def test_it_goes_with_what_else_a_run_may_have(run_config: Make, given: dict[str, Any]) -> None:
    config = run_config(max_steps=2, beta=0.1, **given)
    train(config)
    losses = logged(Path(config.output_dir), "train")
    assert losses[0] == pytest.approx(torch.tensor(258.0).log().item(), abs=0.4)

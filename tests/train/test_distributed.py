"""`cegm train` in two processes: the run of one, and an end together when one of them goes wrong."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")

import torch
from safetensors.torch import load_file
from torch import Tensor

import train_ranks
from cegm.cli import main


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def command(model: str, text: str, folder: Path, rows: int) -> list[str]:
    options = {
        "model_name_or_path": model,
        "data": text,
        "output_dir": folder,
        "max_length": 32,
        "per_device_train_batch_size": rows,
        "max_steps": 4,
        "logging_steps": 1,
        "eval_rows": 4,
        "learning_rate": 1e-3,
        "threads": 1,
        "progress": "false",
        "precision": "float32",
        "refresh_every": 2,
    }
    return ["train", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]


def logged(folder: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if line["kind"] == "train"]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.allclose(found[name], weight, atol=1e-5) for name, weight in expected.items())


def test_two_processes_make_the_run_of_one_which_goes_on_from_their_checkpoint(model_folder, text_file, tmp_path, port):
    alone, both, rest = (tmp_path / name for name in ("alone", "both", "rest"))
    saving = [*command(model_folder, text_file, both, rows=2), "--save_steps", "2"]
    ended = train_ranks.together(saving, tmp_path, port)
    assert [code for code, _ in ended] == [0, 0], ended
    assert main(["verify", str(both)]) == 0

    assert main(command(model_folder, text_file, alone, rows=4)) == 0
    assert logged(both, "loss") == pytest.approx(logged(alone, "loss"), rel=1e-5)
    assert logged(both, "gradient_norm") == pytest.approx(logged(alone, "gradient_norm"), rel=1e-4)
    assert logged(both, "tokens") == logged(alone, "tokens")
    assert close(weights(both), weights(alone))

    checkpoint = str(both / "checkpoints" / "step-2")
    resuming = [*command(model_folder, text_file, rest, rows=4), "--resume_from_checkpoint", checkpoint]
    assert main(resuming) == 0
    assert close(weights(rest), weights(alone))


def test_a_bad_gradient_of_one_process_stops_both_before_the_update(model_folder, text_file, tmp_path, port):
    folder = tmp_path / "both"
    ended = train_ranks.together(command(model_folder, text_file, folder, rows=2), tmp_path, port, bad_step=3)
    assert [code for code, _ in ended] == [2, 2], ended
    for _, said in ended:
        assert "at step 3" in said
        assert "stopped before the update" in said
    assert len(logged(folder, "loss")) == 2
    events = [json.loads(line)["event"] for line in (folder / "audit.jsonl").read_text().splitlines()]
    assert events == ["start", "non_finite"]


def test_a_launcher_that_asks_for_shards_is_told_where_to_shard(model_folder, text_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main(command(model_folder, text_file, tmp_path / "run", rows=2)) == 2
    assert "launch it without FSDP" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_torchrun_starts_a_run(model_folder, text_file, tmp_path):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "cegm.cli",
    ]
    folder = tmp_path / "both"
    done = subprocess.run(
        [*torchrun, *command(model_folder, text_file, folder, rows=2)], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert len(logged(folder, "loss")) == 4

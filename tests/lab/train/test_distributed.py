"""`cegm train` in two processes: the run of one, and an end together when one of them goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("trl")


import train_ranks
from cegm.lab.cli import main
from train_ranks import close, command, logged, weights


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


def test_a_launcher_that_would_shard_is_told_who_does(model_folder, text_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main(command(model_folder, text_file, tmp_path / "run", rows=2)) == 2
    assert "give --sharding fsdp" in capsys.readouterr().err
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
        "cegm",
    ]
    folder = tmp_path / "both"
    done = subprocess.run(
        [*torchrun, *command(model_folder, text_file, folder, rows=2)], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert len(logged(folder, "loss")) == 4

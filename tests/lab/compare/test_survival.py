"""A comparison that is killed with several runs in flight goes on, run by run, and ends with the same verdict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

for extra in ("trl", "altair", "statsmodels"):
    pytest.importorskip(extra)

from cegm.durable import sole_writer  # noqa: E402
from cegm.lab.cli import main  # noqa: E402
from cegm.lab.train import verification  # noqa: E402
from cegm.lab.train.audit import read  # noqa: E402

STEPS = 160
SAME = (
    "id",
    "method",
    "seed",
    "status",
    "final_loss",
    "bits_per_byte",
    "steps",
    "tokens",
    "batch_hash",
    "initial_hash",
    "final_hash",
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="pipes and locks of POSIX")


def words(text: Path, folder: Path) -> list[str]:
    return [
        "compare", "--data", str(text), "--output_dir", str(folder), "--methods", "muon,cegm", "--seeds", "1", "--processes", "2",
        "--max_steps", str(STEPS), "--max_length", "32", "--per_device_train_batch_size", "2", "--eval_rows", "4", "--eval_steps", "80",
        "--axes", "none", "--equal_seconds", "false", "--save_steps", "20", "--save_total_limit", "2",
    ]  # fmt: skip


def wait_for(happened: Any, seconds: float = 200.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def is_free(folder: Path) -> bool:
    try:
        with sole_writer(folder):
            return True
    except ValueError:
        return False


def losses(folder: Path) -> Any:
    verdict = json.loads((folder / "verdict.json").read_text())
    kept = [measure for measure in verdict["measures"] if measure["name"] in ("bits_per_byte", "optimizer_state")]
    assert len(kept) == 2
    return kept


def test_killed_with_two_runs_in_flight(tmp_path: Path) -> None:
    text = tmp_path / "book.txt"
    text.write_text(
        "\n".join(f"the miller counted {i * i} sacks and {i % 7} mice." for i in range(400)), encoding="utf-8"
    )
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-m", "cegm.lab.cli", *words(text, killed)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len({path.parts[-3] for path in killed.glob("runs/*/checkpoints/step-*")}) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    runs = list(killed.glob("runs/*"))
    assert len(runs) == 2
    assert not list(killed.glob("runs/*/result.json"))
    wait_for(lambda: all(is_free(run) for run in runs))  # the workers ended with it

    assert main(words(text, killed)) == 0
    assert main(words(text, whole)) == 0
    for run in runs:
        (resume,) = [event for event in read(run / "audit.jsonl")[0] if event["event"] == "resume"]
        assert resume["step"] >= 20
        assert {finding.state for finding in verification.verify(run)} == {"whole"}
        assert not (run / "checkpoints").exists()
    one, other = (pd.read_parquet(folder / "results.parquet")[list(SAME)] for folder in (killed, whole))
    pd.testing.assert_frame_equal(one, other)
    assert losses(killed) == losses(whole)


def test_a_second_comparison_in_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "book.txt").write_text("the miller counted his sacks. " * 200)
    (tmp_path / "out").mkdir()
    with sole_writer(tmp_path / "out"):
        assert main(words(tmp_path / "book.txt", tmp_path / "out")) == 2
    assert "another process is writing to" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())

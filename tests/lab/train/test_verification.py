"""`cegm verify`: a run folder that is whole is called so, and every damage is named with its part."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("trl")

from cegm.durable import sha256
from cegm.lab.cli import main
from cegm.lab.train import verification
from cegm.lab.train.audit import AuditLog
from cegm.lab.train.checkpoints import WRITING, remove, seal
from cegm.lab.train.folder import RunFolder


def checkpoint(folder: RunFolder, audit: AuditLog, step: int) -> Path:
    written = folder.writing / "written"
    written.mkdir(parents=True)
    (written / "model.safetensors").write_bytes(bytes([step]) * 300)
    place = folder.checkpoints / f"step-{step}"
    audit.record("checkpoint", step=step, manifest=seal(written, place, step))
    return place


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that is under way, with checkpoints at steps 2 and 4."""
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    folder.config.write_text("config: {}\n")
    folder.metrics.write_text('{"kind": "train", "step": 1, "tokens": 8}\n')
    audit = AuditLog(folder.audit)
    audit.record("start", config=sha256(folder.config))
    checkpoint(folder, audit, 2)
    checkpoint(folder, audit, 4)
    return folder


def finish(folder: RunFolder) -> None:
    folder.model.mkdir()
    (folder.model / "model.safetensors").write_bytes(b"weights")
    files = [folder.metrics, folder.model / "model.safetensors"]
    digests = {path.relative_to(folder.root).as_posix(): sha256(path) for path in files}
    AuditLog(folder.audit).record("finish", step=4, files=digests)


def states(folder: RunFolder) -> dict[str, str]:
    return {finding.part: finding.state for finding in verification.verify(folder.root)}


def damaged(folder: RunFolder) -> dict[str, str]:
    return {f.part: f.detail for f in verification.verify(folder.root) if f.state == "damaged"}


def test_a_run_under_way(run: RunFolder) -> None:
    assert states(run) == {
        "audit.jsonl": "whole",
        "config.yaml": "whole",
        "metrics.jsonl": "unproven",
        "checkpoints/step-2": "whole",
        "checkpoints/step-4": "whole",
    }


def test_a_finished_run(run: RunFolder) -> None:
    finish(run)
    assert set(states(run).values()) == {"whole"}
    assert "model" in states(run)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("config.yaml", "config.yaml"),
        ("metrics.jsonl", "metrics.jsonl"),
        ("audit.jsonl", "audit.jsonl"),
        ("model/model.safetensors", "model/model.safetensors"),
        ("checkpoints/step-4/model.safetensors", "checkpoints/step-4"),
        ("checkpoints/step-2/manifest.json", "checkpoints/step-2"),
    ],
)
@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_every_damage_of_a_finished_run_is_named(run: RunFolder, name: str, part: str, how: str) -> None:
    finish(run)
    path = run.root / name
    good = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(good[:-2] + (bytes([good[-2] ^ 1]) + good[-1:] if how == "flipped" else b""))
    assert list(damaged(run)) == [part]


def test_a_checkpoint_that_was_put_in_place_of_another(run: RunFolder) -> None:
    written = run.writing / "written"
    written.mkdir(parents=True)
    (written / "model.safetensors").write_bytes(b"other weights")
    seal(written, run.checkpoints / "step-4", 4)
    assert damaged(run) == {
        "checkpoints/step-4": "every file fits the manifest, but it is not the checkpoint in the log"
    }


def test_a_checkpoint_under_another_name(run: RunFolder) -> None:
    (run.checkpoints / "step-4").rename(run.checkpoints / "step-6")
    assert damaged(run) == {"checkpoints/step-4": "is missing", "checkpoints/step-6": "is the checkpoint of step 4"}


def test_a_checkpoint_that_the_log_does_not_know_is_not_called_damaged(run: RunFolder) -> None:
    written = run.writing / "written"
    written.mkdir(parents=True)
    seal(written, run.checkpoints / "step-6", 6)  # killed before the event
    assert states(run)["checkpoints/step-6"] == "unproven"


def test_checkpoints_may_go_when_the_log_says_so_or_the_run_is_over(run: RunFolder) -> None:
    AuditLog(run.audit).record("removed", checkpoint="step-2")
    remove(run.checkpoints / "step-2")
    assert "checkpoints/step-2" not in states(run)
    remove(run.checkpoints / "step-4")
    assert damaged(run) == {"checkpoints/step-4": "is missing"}
    finish(run)
    assert damaged(run) == {}


def test_metrics_of_a_run_under_way(run: RunFolder) -> None:
    with run.metrics.open("a") as file:
        file.write('{"kind": "train", "st')
    assert states(run)["metrics.jsonl"] == "unproven"
    run.metrics.write_text('{"kind": "train"\n{"kind": "train", "step": 2}\n')
    assert damaged(run) == {"metrics.jsonl": "line 1 cannot be read"}


def test_command(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(run.root)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(run.root)
    assert printed[1].split() == ["part", "state", "detail"]
    assert printed[-1] == f"{run.root}: nothing is damaged"
    (run.checkpoints / "step-4" / "model.safetensors").write_bytes(b"")
    assert main(["verify", str(run.root)]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert "checkpoints/step-4  damaged   model.safetensors differs from the manifest" in printed
    assert printed[-1] == f"{run.root}: 1 damaged"


def test_command_on_a_comparison_checks_every_run(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    comparison = run.root.parent / "comparison"
    (comparison / "runs").mkdir(parents=True)
    run.root.rename(comparison / "runs" / "muon-seed0")
    assert main(["verify", str(comparison)]) == 0
    assert "muon-seed0\npart " in capsys.readouterr().out


def test_command_on_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "nothing")]) == 2


def test_what_is_being_written_is_no_checkpoint(run: RunFolder) -> None:
    (run.checkpoints / WRITING / "checkpoint-6").mkdir(parents=True)
    assert damaged(run) == {}


def test_a_run_from_before_lines_had_hashes_is_not_called_damaged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config.write_text("config: {}\n")
    folder.metrics.write_text('{"kind": "train", "step": 1, "tokens": 8}\n')
    start = '{"time": "2026-01-01", "event": "start", "previous": ""}'
    finish = json.dumps({"event": "finish", "previous": hashlib.sha256(start.encode()).hexdigest()})
    folder.audit.write_text(f"{start}\n{finish}\n")
    assert [finding.state for finding in verification.verify(tmp_path)] == ["unproven"] * 3
    folder.audit.write_text(f"{start}\n{finish[:-2]}\n")
    assert verification.verify(tmp_path)[0].state == "damaged"

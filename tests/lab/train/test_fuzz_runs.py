"""Thousands of damaged run folders: `cegm verify` says what is damaged, and a resumption goes on from what is whole, or stops."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import mutations
from cegm.lab.report.runs import Folder
from cegm.lab.report.runs import read as read_for_page
from cegm.lab.train import audit, checkpoints, verification
from cegm.lab.train.callbacks import MetricsFile
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.resume import Resumption, find
from cegm.lab.train.run import train
from cegm.lab.train.run_config import RunConfig
from mutations import counts

Make = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def finished(model_folder: str, text_file: str, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run of four steps with checkpoints of the second and fourth; its folder is only read."""
    config = RunConfig(
        model_name_or_path=model_folder, data=text_file, output_dir=str(tmp_path_factory.mktemp("finished") / "run"), max_length=32,
        per_device_train_batch_size=4, max_steps=4, save_steps=2, logging_steps=1, eval_rows=4, threads=1, learning_rate=1e-2,
    )  # fmt: skip
    train(config)
    return config


@pytest.fixture
def run(finished: RunConfig, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(finished.output_dir, tmp_path / "run")))


@pytest.fixture
def killed(run: RunFolder) -> RunFolder:
    """The same run, killed after its last checkpoint and before its end."""
    shutil.rmtree(run.model)
    cut_last_line(run.audit)
    cut_last_line(run.metrics)
    return run


def cut_last_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def damaged(path: Path, draw: random.Random) -> bytes:
    """Puts a mutated content into a file; returns the one that was there."""
    original = path.read_bytes()
    changed = original
    while changed == original:
        changed = mutations.mutated(original, draw)
    path.write_bytes(changed)
    return original


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@counts(60, 1500)
def test_verify_sees_every_change_of_a_finished_run(run: RunFolder, count: int) -> None:
    """Only a log that was cut between two lines may pass: no file can show that by itself."""
    draw, there = random.Random(8), files(run.root)
    events, _ = audit.read(run.audit)
    for number in range(count):
        path = there[number % len(there)] if number % 3 else run.audit
        original = damaged(path, draw)
        findings = mutations.outcome(lambda: verification.verify(run.root))
        states = {finding.part: finding.state for finding in findings}
        if path == run.audit:
            if states["audit.jsonl"] == "whole":
                found, _ = audit.read(run.audit)
                assert found == events[: len(found)]
        else:
            part = path.relative_to(run.root).as_posix()
            assert any(state == "damaged" and part.startswith(name) for name, state in states.items()), part
            assert states["audit.jsonl"] == "whole"
        path.write_bytes(original)
    assert {finding.state for finding in verification.verify(run.root)} == {"whole"}


@counts(20, 600)
def test_events_that_were_forged(run: RunFolder, count: int) -> None:
    """A chain that is right around events that no run writes."""
    draw, (events, _) = random.Random(9), audit.read(run.audit)
    for _ in range(count):
        run.audit.unlink(missing_ok=True)
        log = audit.AuditLog(run.audit)
        changed = mutations.changed_value(events, draw)
        for event in changed if isinstance(changed, list) else [changed]:
            facts = event if isinstance(event, dict) else {"event": event}
            kept = {str(name): value for name, value in facts.items() if name not in ("time", "previous", "sha256")}
            log.record(kept.pop("event", None), **{name.replace("event", "x"): value for name, value in kept.items()})
        findings = mutations.outcome(lambda: verification.verify(run.root))
        assert isinstance(findings, Exception) or {finding.state for finding in findings} <= {
            "whole",
            "damaged",
            "unproven",
        }


@counts(56, 1500)
def test_a_resumption_never_takes_a_damaged_checkpoint(finished: RunConfig, killed: RunFolder, count: int) -> None:
    """Every file of both checkpoints in turn: `latest` is the other one, says so, and holds what was saved."""
    draw = random.Random(10)
    resuming = RunConfig(**{**vars(finished), "output_dir": str(killed.root), "resume_from_checkpoint": "latest"})
    there = files(killed.checkpoints)
    saved = {name: (killed.checkpoints / name / "run_state.json").read_bytes() for name in ("step-2", "step-4")}
    for number in range(count):
        path = there[number % len(there)]
        original = damaged(path, draw)
        hurt = path.relative_to(killed.checkpoints).parts[0]
        found = mutations.outcome(lambda: find(resuming, killed))
        assert isinstance(found, Resumption)
        assert found.checkpoint.name == ({"step-2", "step-4"} - {hurt}).pop()
        assert (found.checkpoint / "run_state.json").read_bytes() == saved[found.checkpoint.name]
        assert bool(found.notes) == (hurt == "step-4")
        path.write_bytes(original)


@counts(40, 500)
def test_states_of_a_run_that_were_forged(finished: RunConfig, killed: RunFolder, count: int) -> None:
    """`run_state.json` with a manifest that fits it: read as it is, or refused."""
    draw = random.Random(11)
    resuming = RunConfig(**{**vars(finished), "output_dir": str(killed.root), "resume_from_checkpoint": "latest"})
    place, beside = killed.checkpoints / "step-4", killed.root / "forged"
    original = (place / "run_state.json").read_bytes()
    for _ in range(count):
        change = draw.choice((mutations.changed_line, mutations.mutated))
        place.rename(beside)
        (beside / "run_state.json").write_bytes(change(original, draw))
        checkpoints.seal(beside, place, 4)
        found = mutations.outcome(lambda: find(resuming, killed))
        if isinstance(found, Resumption):
            mutations.outcome(lambda found=found: found.require_same(resuming, found.state.data, 1))


@counts(30, 900)
def test_lines_that_are_continued_are_those_that_were_written(killed: RunFolder, tmp_path: Path, count: int) -> None:
    """`metrics.jsonl` and `audit.jsonl` of a run that is resumed: as at the checkpoint, or refused."""
    draw, path = random.Random(12), killed.metrics
    metrics = MetricsFile(path)
    size, digest, whole = metrics.size(), metrics.hash(), path.read_bytes()
    chain = killed.audit.read_bytes()
    for _ in range(count):
        damaged(path, draw)
        if mutations.outcome(lambda: metrics.cut_to(size, digest)) is None:
            assert path.read_bytes() == whole
        path.write_bytes(whole)
        damaged(killed.audit, draw)
        if isinstance(mutations.outcome(lambda: audit.AuditLog(killed.audit)), audit.AuditLog):
            kept = [
                line for line in killed.audit.read_bytes().splitlines(keepends=True) if b'"unfinished_line"' not in line
            ]
            assert chain.startswith(b"".join(kept))
        killed.audit.write_bytes(chain)


@counts(40, 600)
def test_no_page_is_drawn_from_changed_records(run: RunFolder, count: int) -> None:
    """A finished run's records are those that its log tells of, or there is no page."""
    draw, chain = random.Random(13), run.audit.read_bytes()
    for _ in range(count):
        path = draw.choice((run.metrics, run.config, run.audit))
        original = damaged(path, draw)
        found = mutations.outcome(lambda: read_for_page(run.root))
        if isinstance(found, Folder):
            assert path == run.audit
            assert chain.startswith(run.audit.read_bytes())
        path.write_bytes(original)
    assert isinstance(read_for_page(run.root), Folder)


def test_lines_changed_before_a_checkpoint_stop_the_resumption(finished: RunConfig, killed: RunFolder) -> None:
    content = killed.metrics.read_bytes()
    killed.metrics.write_bytes(content.replace(b'"spikes": 0', b'"spikes": 9', 1))
    resuming: dict[str, Any] = {**vars(finished), "output_dir": str(killed.root), "resume_from_checkpoint": "latest"}
    with pytest.raises(ValueError, match=r"metrics\.jsonl is not what it was when the checkpoint was made"):
        train(RunConfig(**resuming))

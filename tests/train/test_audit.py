"""The audit chain notices every change, and goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cegm.train.audit import AuditLog, verify


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path)
    for step in range(3):
        audit.record("checkpoint", step=step)
    return path


def test_chain_goes_on_in_another_process(log: Path) -> None:
    before = verify(log)
    AuditLog(log).record("finish")
    lines = log.read_text().splitlines()
    assert json.loads(lines[0])["previous"] == ""
    assert json.loads(lines[3])["previous"] == before
    assert verify(log) != before


@pytest.mark.parametrize("line", [0, 1])
def test_changed_removed_or_inserted_line_shows(log: Path, line: int) -> None:
    lines = log.read_text().splitlines()
    changed = [*lines[:line], lines[line].replace('"step": ', '"step": 1'), *lines[line + 1 :]]
    removed = lines[:line] + lines[line + 1 :]
    inserted = [*lines[:line], lines[line], *lines[line:]]
    for forged in (changed, removed, inserted, [*lines[:line], "not json", *lines[line + 1 :]]):
        log.write_text("\n".join(forged) + "\n")
        with pytest.raises(ValueError, match="the log was changed"):
            verify(log)
        with pytest.raises(ValueError, match="the log was changed"):
            AuditLog(log)

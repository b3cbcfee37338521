"""The audit chain notices every change, and goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cegm.lab.train.audit import AuditLog, read


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path)
    for step in range(3):
        audit.record("checkpoint", step=step)
    return path


def test_chain_goes_on_in_another_process(log: Path) -> None:
    _, before = read(log)
    AuditLog(log).record("finish")
    lines = log.read_text().splitlines()
    assert json.loads(lines[0])["previous"] == ""
    assert json.loads(lines[3])["previous"] == before
    assert read(log)[1] != before


@pytest.mark.parametrize("line", [0, 1, 2])
def test_changed_removed_or_inserted_line_shows(log: Path, line: int) -> None:
    lines = log.read_text().splitlines()
    changed = [*lines[:line], lines[line].replace('"step": ', '"step": 1'), *lines[line + 1 :]]
    removed = lines[:line] + lines[line + 1 :] if line < 2 else ["", *lines]  # a cut at the end cannot be seen
    inserted = [*lines[:line], lines[line], *lines[line:]]
    for forged in (changed, removed, inserted, [*lines[:line], "not json", *lines[line + 1 :]]):
        log.write_text("\n".join(forged) + "\n")
        with pytest.raises(ValueError, match="the log was changed"):
            read(log)
        with pytest.raises(ValueError, match="the log was changed"):
            AuditLog(log)


def test_every_flipped_byte_of_the_last_line_shows(log: Path) -> None:
    good = log.read_bytes()
    for position in range(good.rfind(b"\n", 0, -1) + 1, len(good) - 1):
        log.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(ValueError, match="line 3 does not continue"):
            read(log)


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_that_was_never_finished_is_cut_off_and_told(log: Path, kept: int) -> None:
    good = log.read_bytes()
    start = good.rfind(b"\n", 0, -1) + 1
    torn = good[start:][:kept]
    log.write_bytes(good[:start] + torn)
    with pytest.raises(ValueError, match="ends in the middle of a line"):
        read(log)
    AuditLog(log).record("resume")
    events, _ = read(log)
    assert [event["event"] for event in events] == ["checkpoint", "checkpoint", "unfinished_line", "resume"]
    assert events[2]["bytes"] == len(torn)


def test_a_line_broken_off_at_once_leaves_an_empty_log(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:30])
    AuditLog(log).record("start")
    assert [event["event"] for event in read(log)[0]] == ["unfinished_line", "start"]
    assert read(log)[0][0]["previous"] == ""

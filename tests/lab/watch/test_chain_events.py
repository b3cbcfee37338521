"""Events are shown as far as they can be read, with what their chain says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cegm.lab.train.audit import AuditLog, read
from cegm.lab.watch.chain_events import ChainEvents


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.record("start", method="cegm")
    log.record("checkpoint", step=10)
    return tmp_path / "audit.jsonl"


def look(path: Path) -> ChainEvents:
    found = ChainEvents(path)
    found.look()
    return found


def test_a_whole_chain_says_where_it_ends_and_grows(path: Path) -> None:
    found = look(path)
    assert [event["event"] for event in found.events] == ["start", "checkpoint"]
    assert read(path)[1][:16] in found.standing
    AuditLog(path).record("finish")
    found.look()
    assert len(found.events) == 3


def test_a_changed_line_is_shown_and_said(path: Path) -> None:
    path.write_text(path.read_text().replace('"step": 10', '"step": 11'))
    found = look(path)
    assert [event.get("step") for event in found.events] == [None, 11]
    assert "not whole: line 2 does not continue" in found.standing


def test_half_a_line_or_a_broken_one_ends_what_is_shown(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    assert len(look(path).events) == 1
    path.write_bytes(b"\xff\n" + content)
    assert look(path).events == []


def test_no_log_is_no_event(tmp_path: Path) -> None:
    found = look(tmp_path / "audit.jsonl")
    assert (found.events, found.standing) == ([], "")

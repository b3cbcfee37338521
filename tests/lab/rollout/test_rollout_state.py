"""The chain decides where a roll-out stands; whatever else says something is put right, and that is said."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from cegm.lab.rollout import rollout_state
from cegm.lab.rollout.rollout_state import STAGES, RolloutFolder, read, rebuild, record

APPROVAL: dict[str, Any] = {
    "stage": "approved", "release": "r", "manifest": "m", "approver": "B. Second", "approver_key": "k",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> RolloutFolder:
    made = RolloutFolder(tmp_path / "rollout")
    record(made, "approve", **APPROVAL)
    return made


def test_the_stage_is_that_of_the_last_decision(folder: RolloutFolder) -> None:
    assert read(folder)[0].stage == "approved"
    for stage, share in STAGES.items():
        state = record(folder, "stage", stage=stage, reason="gates")
        assert (state.stage, state.share, state.reason) == (stage, share, "gates")
    assert state.next_stage == "all"


def test_a_stage_that_waits_goes_on_to_wait_until_the_next_decision(folder: RolloutFolder) -> None:
    record(folder, "stage", stage="canary 5")
    state = record(folder, "wait", reason="errors: inconclusive")
    assert (state.stage, state.waiting, state.next_stage) == ("canary 5", True, "canary 25")
    assert not record(folder, "stage", stage="canary 25").waiting


@pytest.mark.parametrize(
    ("event", "facts", "stage"),
    [
        ("back", {"reason": "r", "who": "w"}, "back"),
        ("alarm", {"indicator": "errors", "hard": True}, "back"),
        ("alarm", {"indicator": "length", "hard": False}, "all"),
        ("alarm", {"indicator": "length"}, "all"),
        ("note", {}, "all"),
    ],
)
def test_what_returns_the_traffic(folder: RolloutFolder, event: str, facts: dict[str, Any], stage: str) -> None:
    record(folder, "stage", stage="all")
    assert record(folder, event, **facts).stage == stage


def test_nobody_is_served_after_the_way_back_until_somebody_approves_again(folder: RolloutFolder) -> None:
    record(folder, "stage", stage="all")
    state = record(folder, "back", reason="r", who="w")
    assert (state.share, state.next_stage) == (0.0, "approved")
    assert record(folder, "approve", **APPROVAL).stage == "approved"


def test_the_first_limit_on_local_texts_is_fixed(folder: RolloutFolder) -> None:
    assert record(folder, "approve", **APPROVAL, most_bits_per_byte=1.5).most_bits_per_byte == 1.5
    assert record(folder, "approve", **APPROVAL, most_bits_per_byte=9.0).most_bits_per_byte == 1.5


@pytest.mark.parametrize("content", ["", "{", '{"stage": "all"}', "[]", "\udcff"])
def test_a_state_that_disagrees_with_the_chain_is_rebuilt_and_said(folder: RolloutFolder, content: str) -> None:
    right = folder.state.read_text()
    folder.state.write_bytes(content.encode("utf-8", "surrogateescape"))
    state, words = rebuild(folder)
    assert state.stage == "approved"
    assert words.endswith("the chain 'approved'; it was rebuilt from the chain")
    assert "\n" not in words
    assert folder.state.read_text() == right
    assert rebuild(folder) == (state, "")


def test_a_state_that_claims_all_traffic_moves_none(folder: RolloutFolder) -> None:
    said = json.loads(folder.state.read_text())
    folder.state.write_text(json.dumps({**said, "stage": "all", "share": 1.0}))
    state, words = rebuild(folder)
    assert state.share == 0.0
    assert "says 'all'" in words
    folder.state.unlink()
    assert "is missing" in rebuild(folder)[1]


def test_a_changed_chain_is_refused_with_its_line(folder: RolloutFolder) -> None:
    record(folder, "stage", stage="shadow")
    folder.audit.write_text(folder.audit.read_text().replace("shadow", "all"))
    with pytest.raises(ValueError, match=r"audit\.jsonl line 2 does not continue"):
        read(folder)
    with pytest.raises(ValueError, match=r"line 2"):
        record(folder, "back", reason="r", who="w")


def test_a_chain_of_something_else_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = RolloutFolder(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 'release'; it is of no roll-out"):
        record(folder, "approve", time="now")
    with pytest.raises(ValueError, match="holds no roll-out; approve a release first"):
        read(RolloutFolder(tmp_path / "none"))


def test_a_decision_on_what_is_no_longer_so_is_not_made(folder: RolloutFolder) -> None:
    seen = read(folder)[0]
    record(folder, "back", reason="a person was first", who="w")
    state = record(folder, "stage", after=seen.end, stage="all")
    assert (state.stage, state.events) == ("back", 2)


def test_decisions_at_the_same_time_leave_a_chain_that_holds(folder: RolloutFolder) -> None:
    threads = [threading.Thread(target=record, args=(folder, "note"), kwargs={"n": n}) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state, events = read(folder)
    assert state.events == 9
    assert {event["n"] for event in events if event["event"] == "note"} == set(range(8))


def test_half_a_line_of_a_full_disk_is_cut_off(folder: RolloutFolder) -> None:
    with folder.audit.open("a") as file:
        file.write('{"time": "2026')
    with pytest.raises(ValueError, match="ends in the middle of a line"):
        read(folder)
    rollout_state.repair(folder)
    assert read(folder)[0].stage == "approved"


def test_whoever_holds_the_chain_for_too_long_is_named(folder: RolloutFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_state, "LOCK_SECONDS", 0.01)
    with rollout_state._alone(folder):
        found: list[str] = []

        def other() -> None:
            try:
                read(folder)
            except ValueError as error:
                found.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "has held" in found[0]

"""The course of a roll-out: what gates decide is in the chain, and what the disk does not take holds all the same."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anyio")

from cegm.lab.records import Request
from cegm.lab.rollout import course as courses
from cegm.lab.rollout import rollout_state
from cegm.lab.rollout.course import Course
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import RolloutFolder, read, record

CONFIG = RolloutConfig(stage_requests=100, most_errors=0.05)


def started(root: Path, stage: str = "shadow", **given: Any) -> Course:
    folder = RolloutFolder(root)
    record(folder, "approve", stage="approved", release="r", manifest="m", approver="B", approver_key="k")
    if stage != "approved":
        record(folder, "stage", stage=stage)
    return Course(folder, CONFIG, **{"require_admitted": lambda: None, **given})


def count(course: Course, requests: int, errors: int = 0, seconds: float = 0.1, stage: str = "") -> None:
    stage = stage or course.state.stage
    for number in range(requests):
        usual: dict[str, Any] = {
            "number": number, "time": "2100-01-01", "user": "0" * 16, "stage": stage, "status": 200, "characters": 1, "refused": False,
        }  # fmt: skip
        course.add(Request(**usual, variant="champion", shadow=False, seconds=0.1))
        error = "gone" if number < errors else ""
        course.add(Request(**usual, variant="challenger", shadow=stage == "shadow", seconds=seconds, error=error))


def decided(course: Course) -> str:
    asyncio.run(course.decide())
    return course.state.stage


def test_success_goes_from_stage_to_stage_and_ends_with_all(tmp_path: Path) -> None:
    course = started(tmp_path, "approved")
    assert decided(course) == "shadow"
    passed = []
    for _ in range(5):
        count(course, 99)
        assert decided(course) == (passed[-1] if passed else "shadow")
        count(course, 1)
        passed.append(decided(course))
    assert passed == ["canary 5", "canary 25", "canary 50", "all", "all"]
    events = read(RolloutFolder(tmp_path))[1]
    assert [event.get("who") for event in events] == [None, *["gate"] * 5]
    assert "errors 0 [0, 0.037] against 0.05: success" in str(events[-1]["reason"])


def test_failure_goes_back(tmp_path: Path) -> None:
    course = started(tmp_path, "canary 25")
    count(course, 20, errors=20)
    assert decided(course) == "back"
    assert "errors 1 [" in course.state.reason


def test_what_is_slow_goes_back_at_the_end_of_its_stage(tmp_path: Path) -> None:
    course = started(tmp_path, "canary 50")
    count(course, 100, seconds=1.0)
    assert decided(course) == "back"
    assert "seconds 1 [" in course.state.reason


def test_inconclusive_waits_for_a_person_and_still_goes_back_where_all_fails(tmp_path: Path) -> None:
    course = started(tmp_path, "canary 5")
    count(course, 100, errors=4)
    assert decided(course) == "canary 5"
    assert course.state.waiting
    count(course, 300)
    assert decided(course) == "canary 5", "nobody decides for the person"
    assert read(RolloutFolder(tmp_path))[0].events == 3
    count(course, 300, errors=300)
    assert decided(course) == "back"


def test_a_release_that_was_altered_meanwhile_does_not_go_on(tmp_path: Path) -> None:
    def altered() -> None:
        raise ValueError("releases/1/model/model.safetensors differs from manifest.sha256")

    course = started(tmp_path, "canary 5", require_admitted=altered)
    count(course, 100)
    assert decided(course) == "back"
    assert "model.safetensors differs" in course.state.reason


def test_counts_begin_anew_with_a_stage_and_are_found_again_after_a_restart(tmp_path: Path) -> None:
    course = started(tmp_path, "shadow")
    count(course, 60)
    before: list[Request] = []
    for number in range(60):
        before.append(
            Request(number=number, time="2100-01-01", user="0" * 16, stage="shadow", variant="challenger", shadow=True, status=200,
                    seconds=0.1, characters=1, refused=False)
        )  # fmt: skip
    before.append(
        before[0].__class__(**{**{f: getattr(before[0], f) for f in before[0].__struct_fields__}, "time": "1999-01-01"})
    )
    again = Course(RolloutFolder(tmp_path), CONFIG, lambda: None, before)
    assert next(iter(again.stage_tallies.values())).requests == 60
    record(RolloutFolder(tmp_path), "stage", stage="canary 5")
    assert again.state.stage == "canary 5"
    assert not again.stage_tallies


def test_a_decision_that_the_disk_does_not_take_holds_and_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, right = started(tmp_path, "all"), rollout_state.record

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(courses.rollout_state, "record", full)
    count(course, 20, errors=20)
    assert decided(course) == "back"
    assert read(RolloutFolder(tmp_path))[0].stage == "all"
    assert decided(course) == "back"
    monkeypatch.setattr(courses.rollout_state, "record", right)
    assert decided(course) == "back"
    assert read(RolloutFolder(tmp_path))[0].stage == "back"


def test_a_way_back_that_a_person_took_first_is_not_taken_twice(tmp_path: Path) -> None:
    course = started(tmp_path, "all")
    count(course, 20, errors=20)
    record(RolloutFolder(tmp_path), "back", reason="a person", who="B")
    assert decided(course) == "back"
    assert course.state.reason == "a person"


def test_a_chain_that_was_changed_moves_all_traffic_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courses, "GRACE_SECONDS", 0.0)
    course = started(tmp_path, "canary 5")
    assert course.state.share == 0.05
    audit = RolloutFolder(tmp_path).audit
    right = audit.read_text()
    audit.write_text(right.replace("canary 5", "canary 50"))
    assert course.state.share in (0.0, 0.05)
    assert (course.state.stage, course.state.share) == ("back", 0.0)
    assert "the chain cannot be read" in course.state.reason
    audit.write_text(right + '{"time": "20')
    assert course.state.share == 0.0
    assert decided(course) == "canary 5", "half a line was never decided"

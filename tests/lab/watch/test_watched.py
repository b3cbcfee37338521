"""What a folder is, which run is shown first, what each is held against, and how each stands."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from cegm.lab.compare.plan import PlannedRun, run_name
from cegm.lab.train.audit import AuditLog
from cegm.lab.watch.answers import MINUS, standing
from cegm.lab.watch.watched import ALONE, BESIDE, Watched
from made_runs import layer_names, lines_of, make_comparison, make_run, planned, train_line

FAR = {("adamw", 0): 400, ("muon", 0): 400, ("cegm", 0): 200, ("adamw", 1): 100, ("cegm", 1): 0}


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    return make_comparison(tmp_path / "comparison", 400, FAR, 10, layer_names(3))


def identity(method: str, seed: int) -> str:
    return str(planned(method, seed, 400)["id"])


def run_of(folder: Path, method: str, seed: int) -> Path:
    return folder / "runs" / run_name(method, seed, "main", identity(method, seed))


def alone(folder: Path, method: str = "cegm", until: int = 200, gain: float = 0.2, steps: int = 400) -> Path:
    config = {"method": method, "seed": 3, "max_steps": steps}
    return make_run(folder, config, lines_of(steps, until, 10, [], gain))


def test_runs_of_a_comparison_are_those_of_its_plan_and_stand_as_they_are(comparison: Path) -> None:
    watched = Watched(comparison)
    assert watched.kind == "comparison"
    assert [run.title for run in watched.runs.values()] == [
        "AdamW seed 0", "Muon seed 0", "CEGM seed 0", "AdamW seed 1", "CEGM seed 1",
    ]  # fmt: skip
    assert [run.state for run in watched.runs.values()] == ["finished", "finished", "running", "running", "waiting"]
    assert watched.shown_first() == identity("cegm", 0)


def test_each_run_is_held_against_the_baseline_on_its_seed(comparison: Path) -> None:
    runs = Watched(comparison).runs
    pairs = {run.title: runs[run.pair].title for run in runs.values() if run.pair}
    assert pairs == {"Muon seed 0": "AdamW seed 0", "CEGM seed 0": "AdamW seed 0", "CEGM seed 1": "AdamW seed 1"}


def test_a_run_of_a_comparison_is_watched_inside_of_it(comparison: Path) -> None:
    watched = Watched(run_of(comparison, "adamw", 1))
    assert watched.kind == "comparison"
    assert watched.shown_first() == identity("adamw", 1)


def test_runs_that_are_planned_later_and_folders_that_come_are_seen(comparison: Path) -> None:
    watched = Watched(comparison)
    plan = comparison / "plan.jsonl"
    more = planned("adamw", 0, 500, role="equal_seconds", id="feed")
    plan.write_text(plan.read_text() + json.dumps(more) + "\n")
    shutil.copytree(run_of(comparison, "cegm", 0), run_of(comparison, "cegm", 1))
    before = watched.runs[identity("cegm", 0)]
    watched.look()
    assert watched.runs[identity("cegm", 0)] is before
    assert watched.runs[identity("cegm", 1)].state == "running"
    assert watched.runs["feed"].title == "AdamW seed 0, equal seconds"
    assert watched.runs["feed"].pair == ""  # other steps on other batches


def test_a_failed_run_says_so_until_it_is_tried_again(comparison: Path) -> None:
    folder, watched = run_of(comparison, "cegm", 0), Watched(comparison)
    (folder / "result.json").write_text(json.dumps({"status": "failed", "error": "out of memory"}))
    later = time.time() + 5
    os.utime(folder / "result.json", (later, later))
    watched.look()
    run = watched.runs[identity("cegm", 0)]
    assert run.state == "failed"
    assert standing(run, None, 0.0).alarms[0].words == "The run failed: out of memory"
    os.utime(folder / "metrics.jsonl", (later + 5, later + 5))
    watched.look()
    assert run.state == "running"


def test_a_run_alone_knows_its_method_seed_and_steps(tmp_path: Path) -> None:
    watched = Watched(alone(tmp_path / "run"))
    run = watched.runs[ALONE]
    assert (watched.kind, run.title, run.steps, run.state, run.pair) == ("run", "CEGM seed 3", 400, "running", "")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.writelines(list(lines_of(400, 400, 10, []))[-1:])
    watched.look()
    assert run.state == "finished"


def test_a_run_that_was_stopped_is_stopped_and_one_that_is_resumed_runs(tmp_path: Path) -> None:
    watched, log = Watched(alone(tmp_path / "run")), AuditLog(tmp_path / "run" / "audit.jsonl")
    log.record("stopped", step=200, error="KeyboardInterrupt")
    watched.look()
    run = watched.runs[ALONE]
    assert (run.state, standing(run, None, 0.0).healthy.value) == ("stopped", "stopped")
    log.record("resume", step=200)
    watched.look()
    assert (run.state, standing(run, None, 0.0).healthy.value) == ("running", "healthy")


def test_steps_of_epochs_follow_from_tokens(tmp_path: Path) -> None:
    run = Watched(alone(tmp_path / "run")).runs[ALONE]
    run.config |= {"max_steps": None, "num_train_epochs": 2.0}
    assert run.steps == 800  # the text has 400 steps


def test_a_run_may_be_held_against_any_other(tmp_path: Path) -> None:
    own, other = alone(tmp_path / "own"), alone(tmp_path / "other", "adamw", 400, 0.0)
    watched = Watched(own, str(other))
    run = watched.runs[ALONE]
    assert run.pair == BESIDE
    found = standing(run, watched.pair_of(run), 3600.0)
    assert found.pair_title == "AdamW seed 3"
    assert found.better.value == f"{MINUS}0.1940 nats"
    assert found.better.tone == "good"
    assert (
        f"lower in 10 of 10 lines up to step 200. Validation {MINUS}0.0620 bits per byte at step 200"
        in found.better.detail
    )
    assert found.done.value == "1 min 42 s left"  # 200 steps of .51 s
    assert found.cost.value == "1 min 42 s, 102.00"


def test_lines_that_the_baseline_has_not_logged_are_not_compared(tmp_path: Path) -> None:
    own, other = alone(tmp_path / "own"), alone(tmp_path / "other", "adamw", 50, 0.0)
    text = "".join(train_line(step, 400, []) for step in (5, 15, 25))
    (other / "metrics.jsonl").write_text(text)
    watched = Watched(own, str(other))
    run = watched.runs[ALONE]
    assert standing(run, watched.pair_of(run), 0.0).better.value == "not known yet"


def test_a_pilot_is_its_comparison_with_a_verdict(comparison: Path, tmp_path: Path) -> None:
    pilot = tmp_path / "pilot"
    pilot.mkdir()
    (pilot / "pilot.yaml").write_text("task: faq\n")
    AuditLog(pilot / "audit.jsonl").record("fix", criteria={})
    watched = Watched(pilot)
    assert (watched.kind, list(watched.runs), watched.shown_first(), watched.verdict()) == ("pilot", [], "", "")
    comparison.rename(pilot / "comparison")
    (pilot / "verdict.json").write_text(json.dumps({"decision": {"word": "HOLD"}}))
    watched.look()
    assert len(watched.runs) == len(FAR)
    assert watched.verdict() == "HOLD"
    assert [event["event"] for event in watched.events.events] == ["fix"]


@pytest.mark.parametrize("broken", ["", "{", '{"decision": 3}', "[]", "\x00"])
def test_a_verdict_that_is_none_is_none(tmp_path: Path, broken: str) -> None:
    (tmp_path / "pilot.yaml").write_text("")
    (tmp_path / "verdict.json").write_text(broken)
    assert Watched(tmp_path).verdict() == ""


def test_what_is_nothing_of_that_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run, comparison or pilot; give the output_dir"):
        Watched(tmp_path)
    with pytest.raises(ValueError, match=r"baseline=.* is no run; give the output_dir"):
        Watched(alone(tmp_path / "run"), str(tmp_path))


@pytest.mark.parametrize(
    "broken", ["", "{", "- a", "config: 3", "config: {seed: x, max_steps: [1]}", "tokens: {train: x}"]
)
def test_a_run_with_a_broken_configuration_is_watched_all_the_same(tmp_path: Path, broken: str) -> None:
    folder = alone(tmp_path / "run")
    (folder / "config.yaml").write_text(broken)
    watched = Watched(folder)
    found = standing(watched.runs[ALONE], None, 0.0)
    assert found.step == 200


def test_a_planned_run_lies_where_the_comparison_puts_it() -> None:
    for role in ("main", "equal_seconds"):
        run = PlannedRun("adamw", 3, role, {"optimizer_options": {}}, {})  # type: ignore[arg-type]
        assert run.name == run_name("adamw", 3, role, run.id)

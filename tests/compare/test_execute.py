"""Execution with processes that only pretend to train, so that death, retries and resumption can be staged."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("yaml")

from cegm.compare import execute
from cegm.compare.config import from_values
from cegm.compare.plan import plan_main

PRETEND = """
import json, pathlib, sys
folder, line, failures = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
tried = folder / "tries"
count = int(tried.read_text()) + 1 if tried.exists() else 1
tried.write_text(str(count))
if count <= failures:
    sys.exit("the disk is full")
(folder / "result.json").write_text(json.dumps({"id": line["id"], "status": "finished", "tries": count}))
"""


@pytest.fixture
def runs():
    return plan_main(from_values({"max_steps": 3, "seeds": "2", "methods": "adamw,cegm"}))


def pretend(monkeypatch, failures):
    """Replaces the worker; `failures` maps a method to how often its runs die."""

    def start(folder, planned):
        run_folder = folder / "runs" / planned.name
        run_folder.mkdir(parents=True, exist_ok=True)
        words = [
            sys.executable,
            "-c",
            PRETEND,
            str(run_folder),
            json.dumps(planned.line()),
            str(failures.get(planned.method, 0)),
        ]
        with (run_folder / "log.txt").open("wb") as log:
            return subprocess.Popen(words, stdout=log, stderr=log)

    monkeypatch.setattr(execute, "_start", start)
    monkeypatch.setattr(execute, "POLL_SECONDS", 0.01)


def quiet(running, finished):
    pass


def tries(folder, run):
    return int((folder / "runs" / run.name / "tries").read_text())


def test_all_runs_get_a_result(tmp_path, runs, monkeypatch):
    pretend(monkeypatch, {})
    results = execute.execute(tmp_path, runs, workers=2, watch=quiet)
    assert {r["status"] for r in results.values()} == {"finished"}
    assert set(results) == {run.id for run in runs}


def test_a_run_that_dies_once_is_tried_again(tmp_path, runs, monkeypatch):
    pretend(monkeypatch, {"cegm": 1})
    results = execute.execute(tmp_path, runs, workers=2, watch=quiet)
    assert {r["status"] for r in results.values()} == {"finished"}
    assert [results[run.id]["attempts"] for run in runs] == [2 if run.method == "cegm" else 1 for run in runs]


def test_a_run_that_dies_twice_is_reported_not_dropped(tmp_path, runs, monkeypatch):
    pretend(monkeypatch, {"cegm": 9})
    results = execute.execute(tmp_path, runs, workers=2, watch=quiet)
    failed = [results[run.id] for run in runs if run.method == "cegm"]
    assert [r["status"] for r in failed] == ["failed", "failed"]
    assert failed[0]["error"] == "the disk is full (exit code 1)"
    assert json.loads((tmp_path / "runs" / runs[1].name / "result.json").read_text())["status"] == "failed"
    assert all(tries(tmp_path, run) == 2 for run in runs if run.method == "cegm")


def test_a_valid_result_is_never_repeated_and_a_failed_one_is(tmp_path, runs, monkeypatch):
    pretend(monkeypatch, {"cegm": 2})
    execute.execute(tmp_path, runs, workers=1, watch=quiet)
    results = execute.execute(tmp_path, runs, workers=1, watch=quiet)
    assert {r["status"] for r in results.values()} == {"finished"}
    assert [tries(tmp_path, run) for run in runs] == [3 if run.method == "cegm" else 1 for run in runs]


@pytest.mark.parametrize("broken", ["", "{", '{"id": "another", "status": "finished"}', "[]"])
def test_a_broken_result_does_not_count(tmp_path, runs, broken, monkeypatch):
    pretend(monkeypatch, {})
    place = tmp_path / "runs" / runs[0].name
    place.mkdir(parents=True)
    (place / "result.json").write_text(broken)
    assert execute.result_of(tmp_path, runs[0]) is None
    assert execute.execute(tmp_path, runs[:1], workers=1, watch=quiet)[runs[0].id]["status"] == "finished"


def test_an_interrupted_comparison_leaves_no_process_behind(tmp_path, runs, monkeypatch):
    started = []

    def start(folder, planned):
        (folder / "runs" / planned.name).mkdir(parents=True)
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[-1]

    def interrupt(running, finished):
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "_start", start)
    with pytest.raises(KeyboardInterrupt):
        execute.execute(tmp_path, runs, workers=2, watch=interrupt)
    assert len(started) == 2
    assert all(process.poll() is not None for process in started)


def test_the_step_of_a_running_run_is_read_from_its_log(tmp_path, runs):
    folder = tmp_path / "runs" / runs[0].name
    folder.mkdir(parents=True)
    assert execute.current_step(tmp_path, runs[0]) == 0
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 10}\n{"kind": "train", "step": 20}\n{"kind": "tr')
    assert execute.current_step(tmp_path, runs[0]) == 20

"""Execution with processes that only pretend to train, so that death, retries and resumption can be staged."""

import json
import signal

import pytest

pytest.importorskip("yaml")

from cegm.lab.compare import execute
from cegm.lab.compare.compare_config import CompareConfig, from_names
from cegm.lab.compare.inputs import CHANGED
from cegm.lab.compare.plan import plan_main
from pretended import PretendedProcess, Sleeper


@pytest.fixture
def runs():
    return plan_main(from_names(CompareConfig, {"max_steps": 3, "seeds": "2", "methods": "adamw,cegm"}))


class Pretended:
    """A launcher of processes that only pretend; `failures` maps a method to how often its runs die."""

    def __init__(self, **failures):
        self.failures = failures

    def slots(self):
        return 2

    def start(self, folder, planned):
        return PretendedProcess(
            folder / "runs" / planned.name, planned.line(), failures=self.failures.get(planned.method, 0)
        )


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(execute, "POLL_SECONDS", 0.01)


def quiet(running, finished):
    pass


def tries(folder, run):
    return int((folder / "runs" / run.name / "tries").read_text())


def test_all_runs_get_a_result(tmp_path, runs):
    launcher = Pretended()
    results = execute.execute(tmp_path, runs, launcher, quiet)
    assert {r["status"] for r in results.values()} == {"finished"}
    assert set(results) == {run.id for run in runs}


def test_a_run_that_two_arms_share_is_executed_once(tmp_path, runs):
    results = execute.execute(tmp_path, [*runs, runs[0]], Pretended(), quiet)
    assert set(results) == {run.id for run in runs}
    assert tries(tmp_path, runs[0]) == 1


def test_a_run_that_dies_once_is_tried_again(tmp_path, runs):
    launcher = Pretended(cegm=1)
    results = execute.execute(tmp_path, runs, launcher, quiet)
    assert {r["status"] for r in results.values()} == {"finished"}
    assert [results[run.id]["attempts"] for run in runs] == [2 if run.method == "cegm" else 1 for run in runs]


def test_a_run_that_dies_twice_is_reported_not_dropped(tmp_path, runs):
    launcher = Pretended(cegm=9)
    results = execute.execute(tmp_path, runs, launcher, quiet)
    failed = [results[run.id] for run in runs if run.method == "cegm"]
    assert [r["status"] for r in failed] == ["failed", "failed"]
    assert failed[0]["error"] == "the disk is full (exit code 1)"
    assert json.loads((tmp_path / "runs" / runs[1].name / "result.json").read_text())["status"] == "failed"
    assert all(tries(tmp_path, run) == 2 for run in runs if run.method == "cegm")


def test_a_valid_result_is_never_repeated_and_a_failed_one_is(tmp_path, runs):
    launcher = Pretended(cegm=2)
    execute.execute(tmp_path, runs, launcher, quiet)
    results = execute.execute(tmp_path, runs, launcher, quiet)
    assert {r["status"] for r in results.values()} == {"finished"}
    assert [tries(tmp_path, run) for run in runs] == [3 if run.method == "cegm" else 1 for run in runs]


@pytest.mark.parametrize("broken", ["", "{", '{"id": "another", "status": "finished"}', "[]"])
def test_a_broken_result_does_not_count(tmp_path, runs, broken):
    launcher = Pretended()
    place = tmp_path / "runs" / runs[0].name
    place.mkdir(parents=True)
    (place / "result.json").write_text(broken)
    assert execute.result_of(tmp_path, runs[0]) is None
    assert execute.execute(tmp_path, runs[:1], launcher, quiet)[runs[0].id]["status"] == "finished"


class Endless:
    """A launcher of processes that do not end by themselves."""

    def __init__(self):
        self.started = []

    def slots(self):
        return 2

    def start(self, folder, planned):
        self.started.append(Sleeper(folder / "runs" / planned.name, planned.line()))
        return self.started[-1]


def test_an_interrupted_comparison_leaves_no_process_behind(tmp_path, runs):
    def interrupt(running, finished):
        raise KeyboardInterrupt

    launcher = Endless()
    with pytest.raises(KeyboardInterrupt):
        execute.execute(tmp_path, runs, launcher, interrupt)
    assert len(launcher.started) == 2
    assert all(process.poll() == -signal.SIGTERM for process in launcher.started)


class Scripted:
    """A launcher whose processes end at once with the given codes, try by try; 0 leaves a result."""

    def __init__(self, *codes):
        self.codes = list(codes)
        self.closed = 0

    def slots(self):
        return 1

    def start(self, folder, planned):
        run_folder, code = folder / "runs" / planned.name, self.codes.pop(0)
        run_folder.mkdir(parents=True, exist_ok=True)
        if code == 0:
            (run_folder / "result.json").write_text(json.dumps({"id": planned.id, "status": "finished"}))
        return self.Ended(self, code)

    class Ended:
        def __init__(self, launcher, code):
            self.launcher, self.code = launcher, code

        def poll(self):
            return self.code

        def close(self):
            self.launcher.closed += 1


@pytest.mark.parametrize(
    ("codes", "status", "tries"),
    [
        ((0,), "finished", 1),
        ((-9, 0), "finished", 2),
        ((-9, -9), "failed", 2),
    ],
)
def test_a_run_has_two_tries(tmp_path, runs, codes, status, tries):
    launcher = Scripted(*codes)
    result = execute.execute(tmp_path, runs[:1], launcher, quiet)[runs[0].id]
    assert (result["status"], result["attempts"]) == (status, tries)
    assert not launcher.codes
    assert launcher.closed == tries


def test_what_was_changed_ends_the_command_and_its_processes(tmp_path, runs):
    """No other try would help, and a search must not take it for a bad point."""
    started = []

    class Mixed:
        def slots(self):
            return 2

        def start(self, folder, planned):
            run_folder = folder / "runs" / planned.name
            if not started:
                started.append(Sleeper(run_folder, planned.line()))
                return started[0]
            run_folder.mkdir(parents=True)
            (run_folder / "log.txt").write_text("cegm: warning: a note\ndata a.txt was changed\n")
            return Scripted.Ended(Scripted(), CHANGED)

    with pytest.raises(ValueError, match=r"^data a\.txt was changed$"):
        execute.execute(tmp_path, runs, Mixed(), quiet)
    assert started[0].poll() is not None
    assert not list(tmp_path.glob("runs/*/result.json"))


def test_every_new_try_is_told_in_the_log_and_to_the_user(tmp_path, runs, capsys):
    result = execute.execute(tmp_path, runs[:1], Scripted(-9, 2), quiet)[runs[0].id]
    told = ["cegm: warning: try 1 of adamw seed 0 ended without a result (exit code -9); trying again"]
    assert (tmp_path / "runs" / runs[0].name / "log.txt").read_text().splitlines() == told
    assert capsys.readouterr().err.splitlines() == told
    assert result["error"] == "no output (exit code 2)"


def test_the_watcher_sees_the_step_of_a_running_run(tmp_path, runs):
    folder, seen = tmp_path / "runs" / runs[0].name, []
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 10}\n{"kind": "train", "step": 20}\n{"kind": "tr')

    def watch(running, finished):
        seen.extend(step for _, step in running)
        if seen:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute.execute(tmp_path, runs[:1], Endless(), watch)
    assert seen == [20]

"""The launcher for Ray with a stand-in for it; `test_ray.py` has Ray itself."""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("trl")

from cegm.durable import sole_writer
from cegm.lab.compare import cluster, execute
from cegm.lab.compare.cluster import MARK, Cluster, identity, run_here
from cegm.lab.compare.compare_config import CompareConfig, from_names
from cegm.lab.compare.execute import launching
from cegm.lab.compare.launch import AGAIN
from cegm.lab.compare.plan import plan_main
from fake_ray import FakeRay
from pretended import DiesOnce, PretendedProcess, Sleeper


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "book.txt").write_text("the miller counted his sacks. " * 200)
    values = {"data": str(tmp_path / "book.txt"), "max_steps": 3, "seeds": "1", "methods": "adamw,cegm", "axes": "none"}
    return plan_main(from_names(CompareConfig, values))


@pytest.fixture(autouse=True)
def pretended(monkeypatch):
    monkeypatch.setattr(cluster, "LocalProcess", PretendedProcess)
    monkeypatch.setattr(execute, "POLL_SECONDS", 0.01)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def connected(monkeypatch, ray, ours=True):
    monkeypatch.setattr(cluster, "connect", lambda processes: (ray, ours))
    return ray


def quiet(running, finished):
    pass


def brought(folder, runs, watch=quiet):
    with launching("ray", 0) as launcher:
        return execute.execute(folder, runs, launcher, watch)


def test_every_run_is_a_task_that_writes_into_the_comparison_folder(folder, runs, monkeypatch):
    ray = connected(monkeypatch, FakeRay())
    results = brought(folder, runs)
    assert [results[run.id]["status"] for run in runs] == ["finished"] * 2
    for run in runs:
        run_folder = folder / "runs" / run.name
        assert (run_folder / "log.txt").read_text() == "try 1\n"
        assert json.loads((run_folder / "result.json").read_text())["attempts"] == 1
        assert not (run_folder / MARK).exists()
    assert len(ray.tasks) == 2
    assert not ray.cancelled
    assert ray.ended == 1


def test_a_run_that_dies_goes_on_where_its_checkpoint_lies(folder, runs, monkeypatch):
    monkeypatch.setattr(cluster, "LocalProcess", DiesOnce)
    connected(monkeypatch, FakeRay())
    result = brought(folder, runs[:1])[runs[0].id]
    assert (result["status"], result["attempts"], result["tries"]) == ("finished", 2, 2)
    log = (folder / "runs" / runs[0].name / "log.txt").read_text().splitlines()
    assert log[:2] == ["try 1", "the disk is full"]
    assert log[2].endswith("(exit code 1); trying again")
    assert log[3:] == ["try 2"]


@pytest.mark.parametrize(("lost", "status"), [(1, "finished"), (2, "failed")])
def test_machines_that_are_lost_more_often_than_ray_repeats_end_a_try_not_the_comparison(
    folder, runs, monkeypatch, lost, status
):
    ray = connected(monkeypatch, FakeRay(lost=lost))
    result = brought(folder, runs[:1])[runs[0].id]
    assert (result["status"], result["attempts"], len(ray.tasks)) == (status, 2, 2)
    assert "NodeDiedError: the machine is gone\n" in (folder / "runs" / runs[0].name / "log.txt").read_text()
    if status == "failed":
        assert result["error"] == "NodeDiedError: the machine is gone (exit code 1)"


def test_what_else_a_task_raises_counts_as_a_try(folder, runs, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(cluster, "LocalProcess", full)
    connected(monkeypatch, FakeRay())
    result = brought(folder, runs[:1])[runs[0].id]
    assert (result["status"], result["attempts"]) == ("failed", 2)
    assert result["error"] == "OSError: no space left on device (exit code 1)"


def test_a_machine_with_other_code_or_packages_ends_the_comparison_in_one_line(folder, runs, monkeypatch):
    ray = connected(monkeypatch, FakeRay())
    begin = cluster.run_here
    monkeypatch.setattr(cluster, "run_here", lambda *given: begin(*given[:-1], {**identity(), "torch": "9.9"}))
    with pytest.raises(
        ValueError, match=r"^machine \S+ has torch \S+ instead of 9\.9; install the same on every machine$"
    ):
        brought(folder, runs)
    assert set(ray.cancelled) == set(ray.tasks)
    assert ray.ended == 1
    assert not list(folder.glob("runs/*/log.txt"))


@pytest.mark.parametrize("word", [None, "another"])
def test_a_machine_that_does_not_see_the_comparison_folder_is_refused_with_the_remedy(folder, runs, word):
    run_folder = folder / "runs" / runs[0].name
    run_folder.mkdir(parents=True)
    if word is not None:  # a folder of the same name, but not the same
        (run_folder / MARK).write_text(word)
    with pytest.raises(ValueError, match=rf"does not see {folder}, the output_dir; put it where every machine"):
        run_here(run_folder, "word", runs[0].line(), folder, identity())
    assert not (run_folder / "log.txt").exists()


@pytest.mark.parametrize("relative", [False, True])
def test_a_machine_that_does_not_see_the_text_is_refused_with_the_remedy(folder, runs, relative):
    run_folder, line = folder / "runs" / runs[0].name, runs[0].line()
    run_folder.mkdir(parents=True)
    (run_folder / MARK).write_text("word")
    text = Path(line["config"]["data"])
    if relative:
        line["config"]["data"] = text.name
    assert run_here(run_folder, "word", line, text.parent, identity())[0] == 0
    text.unlink()
    with pytest.raises(ValueError, match=rf"does not see {text}, the data; put it where every machine"):
        run_here(run_folder, "word", line, text.parent, identity())


def test_where_a_command_was_started_need_not_be_seen_when_paths_are_absolute(folder, runs):
    run_folder = folder / "runs" / runs[0].name
    run_folder.mkdir(parents=True)
    (run_folder / MARK).write_text("word")
    assert run_here(run_folder, "word", runs[0].line(), folder / "nowhere", identity())[0] == 0


def test_a_task_that_ray_repeats_tells_in_the_log_which_machine_was_lost(folder, runs):
    run_folder = folder / "runs" / runs[0].name
    run_folder.mkdir(parents=True)
    (run_folder / MARK).write_text("word")
    for _ in range(2):
        run_here(run_folder, "word", runs[0].line(), folder, identity())
    machine = cluster.socket.gethostname()
    told = f"cegm: warning: machine {machine}, or Ray's worker on it, was lost; {AGAIN}"
    assert (run_folder / "log.txt").read_text().splitlines() == ["try 1", told, "try 2"]


def test_an_interruption_of_a_task_ends_its_process(folder, runs, monkeypatch):
    started = []

    class Interrupted(Sleeper):
        def wait(self, seconds):
            if self not in started:
                started.append(self)
                raise KeyboardInterrupt
            return super().wait(seconds)

    monkeypatch.setattr(cluster, "LocalProcess", Interrupted)
    run_folder = folder / "runs" / runs[0].name
    run_folder.mkdir(parents=True)
    (run_folder / MARK).write_text("word")
    with pytest.raises(KeyboardInterrupt):
        run_here(run_folder, "word", runs[0].line(), folder, identity())
    assert started[0].poll() == -signal.SIGTERM


def test_it_waits_for_the_process_of_a_lost_task_to_let_go(tmp_path, monkeypatch):
    held, free = threading.Event(), threading.Event()

    def hold():
        with sole_writer(tmp_path):
            held.set()
            free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    threading.Timer(0.5, free.set).start()
    cluster._wait_until_free(tmp_path)
    assert free.is_set()
    holder.join()


def test_runs_that_wait_for_a_machine_wait_no_longer_after_an_interruption(folder, runs, monkeypatch):
    ray = connected(monkeypatch, FakeRay(queued=True))

    def watch(running, finished):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        brought(folder, runs, watch)
    assert set(ray.cancelled) == set(ray.tasks)
    assert len(ray.tasks) == 2
    assert not list(folder.rglob(MARK))


@pytest.mark.parametrize(("resources", "slots", "gpus"), [({"CPU": 7.0}, 7, 0), ({"CPU": 64.0, "GPU": 3.0}, 3, 1)])
def test_a_run_gets_a_core_and_where_there_are_gpus_one_of_them(folder, runs, monkeypatch, resources, slots, gpus):
    ray = connected(monkeypatch, FakeRay(queued=True, **resources))
    launcher = Cluster()
    assert launcher.slots() == slots
    launcher.start(folder, runs[0])
    assert ray.options == [{"num_cpus": 1, "num_gpus": gpus, "max_retries": cluster.LOSSES}]
    assert Cluster(50).slots() == 50


def test_no_cluster_is_needed_when_every_result_is_there(folder, runs, monkeypatch):
    connected(monkeypatch, FakeRay())
    brought(folder, runs)

    def refuse(processes):
        raise AssertionError("connected for nothing")

    monkeypatch.setattr(cluster, "connect", refuse)
    assert set(brought(folder, runs)) == {run.id for run in runs}


def test_a_connection_of_the_program_itself_is_left_to_it_and_so_are_its_signals(folder, runs, monkeypatch):
    ray = FakeRay()

    def connect(processes):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return ray, False

    monkeypatch.setattr(cluster, "connect", connect)
    before = signal.getsignal(signal.SIGTERM)
    brought(folder, runs)
    assert signal.getsignal(signal.SIGTERM) == before
    assert ray.ended == 0


@pytest.mark.parametrize("heard", [signal.SIG_DFL, None])
def test_it_connects_in_any_thread_and_beside_a_handler_that_is_not_of_python(heard, monkeypatch):
    connected(monkeypatch, FakeRay())
    monkeypatch.setattr(cluster.signal, "getsignal", lambda number: heard)
    slots = []
    thread = threading.Thread(target=lambda: slots.append(Cluster(3)._connected() and Cluster(3).slots()))
    thread.start()
    thread.join()
    if heard is None:
        slots.append(Cluster(3)._connected() and Cluster(3).slots())
    assert set(slots) == {3}


class Module(SimpleNamespace):
    """Ray's module, of which only the connection is looked at."""

    def __init__(self, ip="127.0.0.1", fails=None):
        super().__init__(util=SimpleNamespace(get_node_ip_address=lambda: ip), given=None, down=False)
        self.fails = fails

    def is_initialized(self):
        return False

    def init(self, **given):
        if self.fails:
            raise self.fails
        self.given = given

    def shutdown(self):
        self.down = True


@pytest.fixture
def environment(monkeypatch):
    """An environment that the test may change."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    monkeypatch.setattr(os, "environ", kept)
    return kept


def test_a_cluster_of_its_own_keeps_to_itself(environment, monkeypatch):
    ray = Module()
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert cluster.connect(64) == (ray, True)
    assert ray.given["address"] == "local"
    assert ray.given["include_dashboard"] is False
    assert ray.given["num_cpus"] == 64
    (code,) = ray.given["runtime_env"]["py_modules"]
    assert (Path(code) / "optimizer.py").exists()
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["RAY_task_oom_retries"] == "3"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert len(environment["RAY_AUTH_TOKEN"]) == 64


def test_a_cluster_that_would_listen_to_others_is_ended(environment, monkeypatch):
    ray = Module(ip="10.0.0.5")
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(ValueError, match="could keep it on 127"):
        cluster.connect(1)
    assert ray.down


def test_a_cluster_that_does_not_start_is_one_line_and_nothing_of_it_stays(environment, monkeypatch):
    ray = Module(fails=Exception("The current node timed out during startup."))
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(ValueError, match=r"did not start on this machine; .* timed out during startup"):
        cluster.connect(1)
    assert ray.down


def test_ray_address_names_the_cluster_and_nothing_of_it_is_changed(environment, monkeypatch):
    environment["RAY_ADDRESS"] = "10.0.0.5:6379"
    ray = Module(ip="10.0.0.7")
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert cluster.connect(0) == (ray, True)
    assert ray.given["address"] == "10.0.0.5:6379"
    assert "num_cpus" not in ray.given
    assert {name for name in environment if name.startswith("RAY_")} == {"RAY_ADDRESS", "RAY_task_oom_retries"}
    monkeypatch.setitem(sys.modules, "ray", Module(fails=ConnectionError("nobody is there")))
    with pytest.raises(ValueError, match=r"RAY_ADDRESS=10\.0\.0\.5:6379: nobody is there"):
        cluster.connect(0)


@pytest.mark.parametrize(
    ("name", "message"), [("rey", "did you mean 'ray'"), ("ray", r"not installed: pip install 'cegm\[ray\]'")]
)
def test_a_launcher_that_is_not_there_is_said_before_anything_runs(name, message, monkeypatch):
    monkeypatch.setattr("cegm.lab.compare.compare_config.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=message):
        from_names(CompareConfig, {"launcher": name, "seeds": "1"})

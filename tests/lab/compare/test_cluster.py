"""The launcher for Ray with a stand-in for it; `test_ray.py` has Ray itself."""

import json
import os
import signal
import sys
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("trl")

from cegm.lab.compare import agent, cluster, execute
from cegm.lab.compare.cluster import Cluster
from cegm.lab.compare.compare_config import CompareConfig, from_names
from cegm.lab.compare.execute import launching
from cegm.lab.compare.plan import plan_main
from fake_ray import FakeRay
from pretended import DiesOnce, PretendedProcess, Sleeper


@pytest.fixture
def runs():
    return plan_main(from_names(CompareConfig, {"max_steps": 3, "seeds": "1", "methods": "adamw,cegm"}))


@pytest.fixture(autouse=True)
def pretended(monkeypatch, tmp_path):
    monkeypatch.setattr(agent, "LocalProcess", PretendedProcess)
    monkeypatch.setattr(agent, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(execute, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(agent.tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def apart(monkeypatch):
    """Machines that do not see the comparison folder."""
    monkeypatch.setattr(agent, "_reads", lambda path: None)


def connected(monkeypatch, ray, ours=True):
    monkeypatch.setattr(cluster, "connect", lambda processes: (ray, ours))
    return ray


def quiet(running, finished):
    pass


def brought(folder, runs, watch=quiet):
    with launching("ray", 0) as launcher:
        return execute.execute(folder, runs, launcher, watch)


def test_a_shared_folder_is_written_into_where_the_run_is(folder, runs, monkeypatch):
    ray = connected(monkeypatch, FakeRay())
    results = brought(folder, runs)
    assert [results[run.id]["status"] for run in runs] == ["finished"] * 2
    for run in runs:
        assert (folder / "runs" / run.name / "log.txt").read_text() == "try 1\n"
        assert json.loads((folder / "runs" / run.name / "result.json").read_text())["attempts"] == 1
    assert not any("files" in actor.calls for actor in ray.actors)
    assert ray.killed == ray.actors
    assert ray.ended == 1


def test_from_a_machine_of_its_own_everything_comes_back(folder, runs, monkeypatch, apart, tmp_path):
    monkeypatch.setattr(agent, "PIECE_BYTES", 1000)
    connected(monkeypatch, FakeRay())
    assert brought(folder, runs[:1])[runs[0].id]["status"] == "finished"
    run_folder = folder / "runs" / runs[0].name
    kept = {path.relative_to(run_folder).as_posix() for path in run_folder.rglob("*") if path.is_file()}
    assert kept == {"result.json", "metrics.jsonl", "tries", "empty", "model/weights", "log.txt"}
    assert (run_folder / "model" / "weights").read_bytes() == bytes(range(256)) * 10
    assert (run_folder / "log.txt").read_text() == "try 1\n"
    assert not list((tmp_path / "elsewhere").rglob("result.json"))
    assert not (folder / cluster.ARRIVING).exists()


def test_progress_is_seen_here_while_a_run_goes_on_elsewhere(folder, runs, monkeypatch, apart):
    class Slow(PretendedProcess):
        script = PretendedProcess.script + "import time; (folder / 'result.json').unlink(); time.sleep(60)"

    monkeypatch.setattr(agent, "LocalProcess", Slow)
    ray = connected(monkeypatch, FakeRay())
    run_folder = folder / "runs" / runs[0].name
    run_folder.mkdir(parents=True)
    (run_folder / "metrics.jsonl").write_text('{"kind": "train", "step": 250}\n')  # of an earlier try
    seen = []

    def watch(running, finished):
        seen.extend(step for _, step in running)
        if 7 in seen:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        brought(folder, runs[:1], watch)
    assert set(seen) - {250, 0} == {7}
    assert ray.actors[0].held._process.poll() == -signal.SIGTERM
    assert ray.ended == 1


def test_a_run_that_dies_goes_on_where_its_checkpoint_lies(folder, runs, monkeypatch, apart):
    monkeypatch.setattr(agent, "LocalProcess", DiesOnce)
    connected(monkeypatch, FakeRay())
    result = brought(folder, runs[:1])[runs[0].id]
    assert (result["status"], result["attempts"], result["tries"]) == ("finished", 2, 2)
    log = (folder / "runs" / runs[0].name / "log.txt").read_text().splitlines()
    assert log[:2] == ["try 1", "the disk is full"]
    assert log[2].endswith("(exit code 1); trying again")
    assert log[3:] == ["try 2"]


def test_a_lost_machine_is_told_and_the_run_begins_anew_on_another(folder, runs, monkeypatch):
    ray = connected(monkeypatch, FakeRay())
    monkeypatch.setattr(agent, "LocalProcess", Sleeper)

    def watch(running, finished):
        if len(ray.actors) == 1 and "news" in ray.actors[0].calls:
            monkeypatch.setattr(agent, "LocalProcess", PretendedProcess)
            ray.actors[0].lose()

    result = brought(folder, runs[:1], watch)[runs[0].id]
    assert (result["status"], result["attempts"]) == ("finished", 2)
    log = (folder / "runs" / runs[0].name / "log.txt").read_text()
    assert "ActorDiedError: the machine is gone\n" in log
    assert "(its machine or worker was lost); trying again" in log


def test_machines_that_are_lost_again_and_again_end_the_run_not_the_comparison(folder, runs, monkeypatch):
    ray = connected(monkeypatch, FakeRay())
    monkeypatch.setattr(agent, "LocalProcess", Sleeper)

    def watch(running, finished):
        for actor in ray.actors:
            if not actor.lost:
                actor.lose()

    result = brought(folder, runs[:1], watch)[runs[0].id]
    assert (result["status"], result["attempts"], len(ray.actors)) == ("failed", 4, 4)
    assert result["error"] == "ActorDiedError: the machine is gone (its machine or worker was lost)"


def test_a_machine_with_other_code_ends_the_comparison_in_one_line(folder, runs, monkeypatch):
    monkeypatch.setattr(cluster, "identity", lambda: {"code": "other"})
    ray = connected(monkeypatch, FakeRay())
    with pytest.raises(ValueError, match="instead of other; install the same on every machine"):
        brought(folder, runs)
    assert set(ray.killed) == set(ray.actors)
    assert ray.ended == 1


def test_what_else_an_agent_raises_counts_as_a_try(folder, runs, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(agent, "LocalProcess", full)
    connected(monkeypatch, FakeRay())
    result = brought(folder, runs[:1])[runs[0].id]
    assert (result["status"], result["attempts"]) == ("failed", 2)
    assert result["error"] == "OSError: no space left on device (exit code 1)"


def test_runs_that_wait_for_a_machine_wait_no_longer_after_an_interruption(folder, runs, monkeypatch):
    ray = connected(monkeypatch, FakeRay(queued=True))

    def watch(running, finished):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        brought(folder, runs, watch)
    assert set(ray.killed) == set(ray.actors)
    assert [actor.calls for actor in ray.actors] == [["start"]] * 2


@pytest.mark.parametrize(("resources", "slots", "gpus"), [({"CPU": 7.0}, 7, 0), ({"CPU": 64.0, "GPU": 3.0}, 3, 1)])
def test_a_run_gets_a_core_and_where_there_are_gpus_one_of_them(folder, runs, monkeypatch, resources, slots, gpus):
    ray = connected(monkeypatch, FakeRay(**resources))
    launcher = Cluster()
    assert launcher.slots() == slots
    launcher.start(folder, runs[0])
    assert ray.options == [{"num_cpus": 1, "num_gpus": gpus, "max_restarts": 0}]
    assert Cluster(50).slots() == 50
    ray.actors[0].lose()


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
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
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
    assert [name for name in environment if name.startswith("RAY_")] == ["RAY_ADDRESS"]
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

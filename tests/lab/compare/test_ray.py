"""Ray itself: runs that only pretend on a cluster of this machine, and the table of local processes, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

for extra in ("trl", "altair", "statsmodels"):
    pytest.importorskip(extra)

from cegm.lab.cli import main  # noqa: E402
from cegm.lab.compare import cluster  # noqa: E402
from cegm.lab.compare.cluster import Cluster  # noqa: E402
from cegm.lab.compare.compare_config import CompareConfig, from_names  # noqa: E402
from cegm.lab.compare.plan import plan_main  # noqa: E402
from cegm.lab.train import verification  # noqa: E402
from cegm.lab.train.audit import read  # noqa: E402

CLOCKS = ("seconds", "median_step_seconds", "memory_bytes")
"""Columns of `results.parquet` that clocks and memory decide; docs/clusters.md names them."""

METHODS = ("muon", "cegm")

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster of this machine whose runs wait for a file `go` in their folder."""

    def pretend(*given: Any) -> Any:
        import sys

        sys.path.insert(0, tests)
        from cegm.lab.compare import cluster
        from pretended import Waiting

        cluster.LocalProcess = Waiting
        return cluster.run_here(*given)

    tests = str(Path(__file__).parents[2])  # travels with the function, these modules do not
    monkeypatch.setattr(cluster, "run_here", pretend)
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    for name in before:
        del os.environ[name]
    started = Cluster(2)
    yield started
    started.close()
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    os.environ.update(before)


def until(happened: Callable[[], Any], seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
    return found


def test_a_lost_worker_is_repeated_an_interruption_ends_a_run_and_nobody_else_is_let_in(
    launcher: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "book.txt").write_text("the miller counted his sacks. " * 200)
    values = {"data": str(tmp_path / "book.txt"), "max_steps": 3, "seeds": "1", "methods": "adamw,muon", "axes": "none"}
    runs = plan_main(from_names(CompareConfig, values))
    held = [launcher.start(tmp_path, run) for run in runs]
    folders = [tmp_path / "runs" / run.name for run in runs]

    def begun(folder: Path, times: int) -> psutil.Process | None:
        """The process of a try, once it has begun so often."""
        text = (folder / "log.txt").read_text() if (folder / "log.txt").exists() else ""
        ids = [int(line.split()[1]) for line in text.splitlines() if line.startswith("begun")]
        return psutil.Process(ids[-1]) if len(ids) == times else None

    first, other = (until(lambda folder=folder: begun(folder, 1)) for folder in folders)
    addresses = {
        c.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for c in process.net_connections()
        if c.status == psutil.CONN_LISTEN
    }
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    first.parent().parent().kill()  # Ray's worker, above the process that runs are copies of
    until(lambda: begun(folders[0], 2))
    assert not first.is_running()
    (folders[0] / "go").touch()
    until(lambda: held[0].poll() is not None)
    assert held[0].poll() == 0
    assert json.loads((folders[0] / "result.json").read_text())["id"] == runs[0].id
    assert "or Ray's worker on it, was lost; trying again" in (folders[0] / "log.txt").read_text()
    assert held[1].poll() is None
    held[1].stop()
    for process in held:
        process.close()
    assert not other.is_running()
    assert not list(tmp_path.rglob(".mark"))


def words(root: Path, name: str) -> list[str]:
    return [
        "compare", "--data", str(root / "book.txt"), "--output_dir", str(root / name), "--methods", ",".join(METHODS), "--seeds", "1",
        "--processes", "2", "--max_steps", "120", "--max_length", "32", "--per_device_train_batch_size", "2", "--eval_rows", "4",
        "--eval_steps", "60", "--axes", "none", "--equal_seconds", "false", "--save_steps", "20", "--save_total_limit", "2",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, and in `local` what processes of this machine make of it."""
    root = tmp_path_factory.mktemp("ray")
    text = "\n".join(f"the miller counted {i * i} sacks and {i % 7} mice." for i in range(400))
    (root / "book.txt").write_text(text, encoding="utf-8")
    assert main(words(root, "local")) == 0
    return root


class Command:
    """`cegm compare --launcher ray` in a process of its own, with all the processes that it ever had."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / name
        environment = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
        self._errors = (root / f"{name}.err").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cegm.lab.cli", *words(root, name), "--launcher", "ray"],
            stdout=subprocess.DEVNULL, stderr=self._errors, env=environment, start_new_session=True,
        )  # fmt: skip
        self.seen: dict[int, psutil.Process] = {}

    def look(self) -> list[psutil.Process]:
        """The processes below it that live now."""
        now = psutil.Process(self._process.pid).children(recursive=True)
        self.seen.update((process.pid, process) for process in now)
        return now

    def until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 600
        while not happened():
            assert self._process.poll() is None, self.errors()
            assert time.monotonic() < end, "nothing happened"
            self.look()
            time.sleep(0.1)

    def until_a_checkpoint_of(self, method: str) -> None:
        self.until(lambda: any(self.folder.glob(f"runs/{method}-*/checkpoints/step-*")))

    def worker(self, method: str) -> psutil.Process:
        """The process that trains with a method."""
        (found,) = [p for p in self.look() if any(f"/{method}-seed0" in file.path for file in opened(p))]
        return found

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        while self._process.poll() is None:
            self.look() if psutil.pid_exists(self._process.pid) else None
            time.sleep(0.2)
        return self._process.wait()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def left(self) -> list[str]:
        """Processes of it that live on, after a moment for those that notice its end themselves."""
        _, alive = psutil.wait_procs(list(self.seen.values()), timeout=120)
        return [command_line(process) for process in alive]


def opened(process: psutil.Process) -> list[Any]:
    """The files that a process has open for writing or reading."""
    try:
        return process.open_files() if "forkserver" in command_line(process) else []
    except psutil.Error:
        return []


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def same(root: Path, name: str, but: tuple[str, ...] = ()) -> None:
    """All columns but those of clocks are the same, to the bit, and every file of every run is what was written."""
    one, other = (pd.read_parquet(root / each / "results.parquet") for each in ("local", name))
    assert set(one.columns) == set(other.columns)
    kept = [column for column in one.columns if column not in (*CLOCKS, *but)]
    assert {"final_loss", "final_hash", "batch_hash", "tokens", "status"} <= set(kept)
    pd.testing.assert_frame_equal(one[kept], other[kept], check_exact=True)
    for run in (root / name / "runs").iterdir():
        assert {finding.state for finding in verification.verify(run)} == {"whole"}


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_table_is_that_of_local_processes_whatever_is_killed(local: Path) -> None:
    command = Command(local, "killed")
    command.until_a_checkpoint_of("muon")
    command.worker("muon").kill()
    command.until_a_checkpoint_of("cegm")
    holder = command.worker("cegm").parent().parent()  # above the process that runs are copies of
    assert "ray::" in command_line(holder)
    holder.kill()
    assert command.ended() == 0, command.errors()
    assert "try 1 of muon seed 0 ended without a result (exit code -9); trying again" in command.errors()
    assert command.left() == []
    same(local, "killed", but=("attempts",))
    attempts = pd.read_parquet(local / "killed" / "results.parquet").set_index("method")["attempts"]
    assert attempts.to_dict() == {"muon": 2, "cegm": 1}
    (log,) = (local / "killed").glob("runs/cegm-*/log.txt")
    assert "or Ray's worker on it, was lost; trying again" in log.read_text()
    for folder in (local / "killed" / "runs").iterdir():
        (resume,) = [event for event in read(folder / "audit.jsonl")[0] if event["event"] == "resume"]
        assert resume["step"] >= 20
    assert json.loads((local / "killed" / "verdict.json").read_text())["measures"]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interruption_leaves_no_process_and_local_processes_can_go_on(local: Path, number: int) -> None:
    name = f"interrupted-{number}"
    command = Command(local, name)
    command.until_a_checkpoint_of("muon")
    command.signal(number)
    assert command.ended() == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    assert command.left() == []
    assert not list((local / name).glob("runs/muon-*/result.json"))
    assert main(words(local, name)) == 0
    same(local, name, but=("attempts",))  # unknown of a run that ended just before

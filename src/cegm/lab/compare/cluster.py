"""Runs on the machines of a Ray cluster that see the comparison folder: one task holds one run, and Ray repeats it when it is lost.

With `RAY_ADDRESS` set, that cluster is used. Otherwise one is started for this command on this machine, which listens on
127.0.0.1 only, wants a token, shows no dashboard and tells nobody that it is used.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import cegm
from cegm.durable import sole_writer, write_whole
from cegm.lab.compare.launch import AGAIN, GRACE_SECONDS, LOG, LocalProcess, Process
from cegm.lab.compare.plan import PlannedRun
from cegm.lab.train.provenance import code_hash, versions

LOSSES = 3
"""Times that Ray begins a try anew because its machine or worker is gone, which is no fault of the run."""

MARK = ".mark"
"""File with a random word in a run folder: a machine that reads it there sees that folder. Behind it, machines that began."""

TASK_FAILED = 1
OBJECT_STORE_BYTES = 256 << 20
FREE_SECONDS = 30.0
SHARE = "put it where every machine of the cluster sees it, under the same path"


class Cluster:
    """A launcher that asks Ray for one core per run, and for one GPU where the cluster has any.

    It connects when the first run is started, so that a comparison of which everything is there needs no cluster.

    Args:
        processes: Runs at a time; 0 for as many as the cluster has cores, or GPUs. More lets a cluster that grows do so.
    """

    def __init__(self, processes: int = 0) -> None:
        self._processes = processes
        self._ray: Any = None
        self._ours = False

    def slots(self) -> int:
        """Runs that it takes at a time; changes with the machines of the cluster."""
        if self._processes:
            return self._processes
        has = self._connected().cluster_resources()
        return max(1, int(has.get("GPU", 0)) or int(has.get("CPU", 1)))

    def start(self, folder: Path, planned: PlannedRun) -> Process:
        """Starts a run of the comparison in `folder`, as soon as a machine has room for it."""
        ray = self._connected()
        needs = {"num_cpus": planned.config["threads"], "num_gpus": self._gpus, "max_retries": LOSSES}
        return RemoteProcess(ray, ray.remote(run_here).options(**needs).remote, folder, planned)

    def close(self) -> None:
        """Leaves the cluster; one that was started here ends."""
        if self._ours:
            self._ray.shutdown()
        self._ray, self._ours = None, False

    def _connected(self) -> Any:
        if self._ray is None:
            handler = signal.getsignal(signal.SIGTERM)
            self._ray, self._ours = connect(self._processes)
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process without a word
            # All runs on GPUs or none: what is compared must not differ in what computed it.
            self._gpus = int(self._ray.cluster_resources().get("GPU", 0) >= 1)
        return self._ray


def connect(processes: int) -> tuple[Any, bool]:
    """Ray's module, connected, and whether the connection was made here.

    Raises:
        ValueError: No cluster answers at `RAY_ADDRESS`, or one of this machine's own does not start or would be open to others.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_task_oom_retries", str(LOSSES))  # Ray would repeat what takes too much memory for ever
    if not address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # despite its name: stay on loopback
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray would leave one in the home folder
    import ray  # after its environment, which it reads when it is imported

    if ray.is_initialized():  # by the program that calls cegm
        return ray, False
    own: dict[str, Any] = {
        "num_cpus": max(processes, os.cpu_count() or 1),
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    code = {"py_modules": [str(Path(cegm.__file__).parent)]}  # what compares here is what runs everywhere
    try:
        ray.init(
            address=address or "local",
            runtime_env=code,
            log_to_driver=False,
            logging_level="ERROR",
            **({} if address else own),
        )
    except Exception as error:  # Ray raises nothing narrower when its processes take more than 30 s to start
        ray.shutdown()
        what = "Ray did not start on this machine; try again, or use --launcher local"
        what = f"no Ray cluster can be used at RAY_ADDRESS={address}" if address else what
        raise ValueError(f"{what}: {error}") from error
    if not address and ray.util.get_node_ip_address() != "127.0.0.1":
        ray.shutdown()
        raise ValueError(
            "ray was imported before cegm could keep it on 127.0.0.1; call ray.init() yourself, or set RAY_ADDRESS"
        )
    return ray, True


class RemoteProcess:
    """A run that a task holds somewhere in the cluster."""

    def __init__(self, ray: Any, begin: Callable[..., Any], folder: Path, planned: PlannedRun) -> None:
        self._ray, self._run_folder = ray, folder.absolute() / "runs" / planned.name
        self._code: int | None = None
        self._run_folder.mkdir(parents=True, exist_ok=True)
        word = secrets.token_hex(16)
        write_whole(self._run_folder / MARK, word)
        self._ending = begin(self._run_folder, word, planned.line(), Path.cwd(), identity())

    def poll(self) -> int | None:
        """Its exit code, or None while it runs or waits for a machine.

        Raises:
            ValueError: A machine has other packages, or does not see what the run reads or where it writes.
        """
        if self._code is None and self._ray.wait([self._ending], timeout=0)[0]:
            try:
                self._code, result = self._ray.get(self._ending)
            except self._ray.exceptions.RayError as error:
                raised = getattr(error, "cause", None) or error
                if isinstance(raised, ValueError):
                    raise ValueError(str(raised)) from error
                with (self._run_folder / LOG).open("a", encoding="utf-8") as log:
                    log.write(f"{type(raised).__name__}: {' '.join(str(raised).split())}\n")
                self._code = TASK_FAILED
            else:
                if result is not None:  # network file systems may show it here some seconds late
                    write_whole(self._run_folder / "result.json", result)
        return self._code

    def stop(self) -> None:
        """Asks it to end; one that still waits for a machine waits no longer."""
        self._ray.cancel(self._ending)

    def close(self) -> None:
        """Waits until it has ended, which the end of Ray's worker makes it when it takes too long."""
        if self._code is None:
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(self._ending, timeout=2 * GRACE_SECONDS)
            self._ray.cancel(self._ending, force=True)
        (self._run_folder / MARK).unlink(missing_ok=True)


def identity() -> dict[str, str]:
    """Versions of what a result depends on, and the hash of cegm's code; the same on every machine of a comparison."""
    return {**versions(), "code": code_hash()}


def run_here(
    run_folder: Path, word: str, line: Mapping[str, Any], directory: Path, expected: Mapping[str, str]
) -> tuple[int, str | None]:
    """One run on the machine that calls this, until it has ended or Ray interrupts it: its exit code, and its `result.json` if it has one.

    Relative paths of the line begin in `directory`. A machine that is not as `expected` by `identity()`, or does not see
    what the run reads or the `word` where it writes, is a ValueError.
    """
    machine = socket.gethostname()
    for name, value in identity().items():
        if value != expected[name]:
            raise ValueError(
                f"machine {machine} has {name} {value} instead of {expected[name]}; install the same on every machine"
            )
    _require_seen(run_folder, word, line, directory, machine)
    _wait_until_free(run_folder)
    process = LocalProcess(run_folder, line, directory if directory.is_dir() else None)
    try:
        while (code := process.wait(1.0)) is None:  # only between two waits can Ray interrupt
            pass
    finally:
        process.stop()
        process.close()
    return code, (run_folder / "result.json").read_text(encoding="utf-8") if code == 0 else None


def _require_seen(run_folder: Path, word: str, line: Mapping[str, Any], directory: Path, machine: str) -> None:
    """Refuses a machine without the run folder or a text or model of the run; tells in the log which one was lost before."""
    mark = run_folder / MARK
    found = mark.read_text(encoding="utf-8").split() if mark.is_file() else []
    if found[:1] != [word]:
        raise ValueError(f"machine {machine} does not see {run_folder.parents[1]}, the output_dir; {SHARE}")
    given = {**line["config"], "axes_data": line["evaluation"].get("source")}
    for name in (name for name in line["inputs"] if name in given):
        path = directory / Path(given[name]).expanduser()
        if not path.exists():
            raise ValueError(f"machine {machine} does not see {path}, the {name}; {SHARE}")
    if before := found[1:]:
        with (run_folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"cegm: warning: machine {before[-1]}, or Ray's worker on it, was lost; {AGAIN}\n")
    write_whole(mark, " ".join([*found, machine]))


def _wait_until_free(run_folder: Path) -> None:
    """Gives the process of a lost task, which ends a moment after it, time to let go of the folder."""
    end = time.monotonic() + FREE_SECONDS
    while time.monotonic() < end:
        with suppress(ValueError), sole_writer(run_folder):
            return
        time.sleep(0.1)

"""Runs on the machines of a Ray cluster: one actor holds one run (`agent`), and its files come back when it has ended.

With `RAY_ADDRESS` set, that cluster is used. Otherwise one is started for this command on this machine, which listens on
127.0.0.1 only, wants a token, shows no dashboard and tells nobody that it is used.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from cegm.durable import move_whole, write_whole
from cegm.lab.compare.agent import MARK, Agent, News, identity
from cegm.lab.compare.launch import GRACE_SECONDS, LOG, LOST, Process
from cegm.lab.compare.plan import PlannedRun

ARRIVING = ".arriving"
RESULT = "result.json"
AGENT_FAILED = 1
LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 256 << 20


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
        actor = self._agents.options(num_cpus=planned.config["threads"], num_gpus=self._gpus, max_restarts=0).remote()
        return RemoteProcess(ray, actor, folder, planned)

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
            self._agents = self._ray.remote(Agent)
            # All runs on GPUs or none: what is compared must not differ in what computed it.
            self._gpus = int(self._ray.cluster_resources().get("GPU", 0) >= 1)
        return self._ray


def connect(processes: int) -> tuple[Any, bool]:
    """Ray's module, connected, and whether the connection was made here.

    Raises:
        ValueError: No cluster answers at `RAY_ADDRESS`, or one of this machine's own does not start or would be open to others.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # despite its name: stay on loopback
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray would leave one in the home folder
    import ray  # after its environment, which it reads when it is imported

    if ray.is_initialized():  # by the program that calls cegm
        return ray, False
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(f"no Ray cluster can be used at RAY_ADDRESS={address}: {error}") from error
        return ray, True
    cores = max(processes, os.cpu_count() or 1)
    own = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address="local", **own, **quiet)
    except Exception as error:  # Ray raises nothing narrower when its processes take more than 30 s to start
        ray.shutdown()
        raise ValueError(f"Ray did not start on this machine; try again, or use --launcher local: {error}") from error
    if ray.util.get_node_ip_address() != LOOPBACK:
        ray.shutdown()
        raise ValueError(
            "ray was imported before cegm could keep it on 127.0.0.1; call ray.init() yourself, or set RAY_ADDRESS"
        )
    return ray, True


class RemoteProcess:
    """A run that an actor holds somewhere in the cluster."""

    def __init__(self, ray: Any, actor: Any, folder: Path, planned: PlannedRun) -> None:
        self._ray, self._actor = ray, actor
        self._run_folder = folder / "runs" / planned.name
        self._arriving = folder / ARRIVING / planned.name
        self._code: int | None = None
        self._shared: bool | None = None  # known once a machine has started it
        self._continued = {LOG}
        self._run_folder.mkdir(parents=True, exist_ok=True)
        place = (str(folder.absolute()), mark(folder), planned.name, planned.line(), str(Path.cwd()), identity())
        self._answer = actor.start.remote(*place)

    def poll(self) -> int | None:
        """Its exit code, `LOST`, or None while it runs or waits for a machine.

        Raises:
            ValueError: The machine has other code or packages.
        """
        if self._code is None and self._ray.wait([self._answer], timeout=0)[0]:
            try:
                self._code = self._heard()
            except self._ray.exceptions.RayTaskError as error:  # what the agent raised
                if isinstance(error.cause, ValueError):
                    raise ValueError(str(error.cause)) from error
                self._code = self._noted(error.cause, AGENT_FAILED)
            except self._ray.exceptions.RayError as error:
                self._code = self._noted(error, LOST)
        return self._code

    def _heard(self) -> int | None:
        """Takes an answer of the agent and asks again; once the run has ended, until all that it wrote is here."""
        answer: bool | News = self._ray.get(self._answer)
        if isinstance(answer, bool):
            self._shared = answer
            self._answer = self._actor.news.remote()
            return None
        self._write(answer.written)
        if answer.code is None or any(answer.written.values()):
            self._answer = self._actor.news.remote()
            return None
        if answer.code == 0:
            self._fetch()
        return answer.code

    def _write(self, written: dict[str, bytes]) -> None:
        """Continues files that are told as they are written; all but the log begin anew with each try."""
        for name, text in written.items():
            with (self._run_folder / name).open("ab" if name in self._continued else "wb") as file:
                file.write(text)
            self._continued.add(name)

    def _fetch(self) -> None:
        """Brings the files of a finished run, and puts them into the place of its folder in one move.

        Where the folder is shared, only the result is brought: network file systems may show it here some seconds late.
        """
        if self._shared:
            write_whole(self._run_folder / RESULT, self._ray.get(self._actor.read.remote(RESULT, 0)).decode("utf-8"))
            return
        shutil.rmtree(self._arriving, ignore_errors=True)
        self._arriving.mkdir(parents=True)
        names: dict[str, int] = self._ray.get(self._actor.files.remote())
        for name, size in names.items():
            path = self._arriving / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                while file.tell() < size:
                    file.write(self._ray.get(self._actor.read.remote(name, file.tell())))
        with suppress(FileNotFoundError):
            shutil.copy(self._run_folder / LOG, self._arriving / LOG)
        move_whole(self._arriving, self._run_folder)
        with suppress(OSError):  # another run arrives as well
            self._arriving.parent.rmdir()

    def _noted(self, error: BaseException, code: int) -> int:
        """The code, once the log says what happened."""
        with (self._run_folder / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        return code

    def stop(self) -> None:
        """Asks it to end; one that still waits for a machine waits no longer."""
        if self._shared is not None:
            self._answer = self._actor.close.remote()
        else:
            self._ray.kill(self._actor)

    def close(self) -> None:
        """Waits until it has ended, and gives its core back. Should the actor not answer, killing it ends the run as well."""
        if self._shared is not None and self._code != LOST:
            with suppress(self._ray.exceptions.RayError):
                self._ray.get(self._actor.close.remote(), timeout=2 * GRACE_SECONDS)
        self._ray.kill(self._actor)


def mark(folder: Path) -> str:
    """The word by which other machines recognise the folder; written when it is first asked for."""
    path = folder / MARK
    if not path.exists():
        write_whole(path, secrets.token_hex(16))
    return path.read_text(encoding="utf-8")

"""Where the process of a run is started: on this machine here, on others by `cluster`. Both are waited for in the same way."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from cegm.lab.compare.plan import PlannedRun

LOG = "log.txt"

AGAIN = "trying again"
"""Ends every line of the log that tells of another try."""

ORPHANED = 3
"""Exit code of a run whose comparison is gone."""

GRACE_SECONDS = 10.0

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""What a run's process sees differently."""

START = "forkserver" if sys.platform == "linux" else "spawn"
"""On Linux one process loads the libraries, which takes eight seconds of a processor, and those of all runs are copies of it."""

LOADED_ONCE = ["cegm.lab.compare.worker", "cegm.lab.train.run"]


class Process(Protocol):
    """A run that was started somewhere."""

    def poll(self) -> int | None:
        """Its exit code, or None while it runs. When this is 0, its files are in the comparison folder."""

    def stop(self) -> None:
        """Asks it to end."""

    def close(self) -> None:
        """Waits until it has ended, and lets go of it."""


class Launcher(Protocol):
    """A place where runs are started."""

    def slots(self) -> int:
        """Runs that it takes at a time."""

    def start(self, folder: Path, planned: PlannedRun) -> Process:
        """Starts a run of the comparison in `folder`."""


class LocalProcess:
    """A run in a process of its own on this machine, with one thread.

    Args:
        run_folder: Where it writes, its log included; made if it is not there.
        line: Its line of the plan.
        directory: Where relative paths of the plan begin; None: where this process is.
    """

    def __init__(self, run_folder: Path, line: Mapping[str, Any], directory: Path | None = None) -> None:
        run_folder.mkdir(parents=True, exist_ok=True)
        (run_folder / LOG).touch()
        context: Any = multiprocessing.get_context(START)
        context.set_forkserver_preload(LOADED_ONCE)
        # The run ends when this pipe does, so that none outlives a killed comparison and trains beside its successor.
        watched, self._pipe = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_enter, args=(watched, self.work, run_folder, dict(line), directory, dict(os.environ))
        )
        with _environment():
            self._process.start()
        watched.close()

    @staticmethod
    def work(run_folder: Path, line: Mapping[str, Any]) -> None:
        """What the process does."""
        from cegm.lab.compare import worker  # which loads everything

        worker.work(run_folder, line)

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def wait(self, seconds: float) -> int | None:
        """Its exit code as soon as it has one; None after `seconds`."""
        self._process.join(seconds)
        return self.poll()

    def stop(self) -> None:
        """Asks it to end."""
        self._process.terminate()

    def close(self) -> None:
        """Waits until it has ended, which it is made to when it takes too long."""
        if self.wait(GRACE_SECONDS) is None:
            self._process.kill()
            self._process.join()
        self._pipe.close()


@contextmanager
def _environment() -> Iterator[None]:
    """The variables that a run's process, or the one that it is a copy of, is to begin with."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value


def _enter(
    watched: Connection,
    work: Callable[[Path, Mapping[str, Any]], None],
    run_folder: Path,
    line: Mapping[str, Any],
    directory: Path | None,
    environment: Mapping[str, str],
) -> None:
    """The beginning of a run's process: its own log, one thread, and an end with the process that started it."""

    def end_with_parent() -> None:
        os.read(watched.fileno(), 1)  # nothing is ever sent
        os._exit(ORPHANED)

    threading.Thread(target=end_with_parent, daemon=True).start()
    with (run_folder / LOG).open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
            stream.reconfigure(encoding="utf-8", line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()  # what it is a copy of may have begun long ago
    os.environ.update({**environment, **ENVIRONMENT})
    if directory is not None:
        os.chdir(directory)
    try:
        work(run_folder, line)
    finally:
        atexit._run_exitfuncs()  # a copy ends without them, and trackers wait for theirs


class LocalLauncher:
    """Processes of this machine, so many at a time; 0 for one per core."""

    def __init__(self, processes: int = 0) -> None:
        self._processes = processes

    def slots(self) -> int:
        """Runs that it takes at a time."""
        return self._processes or os.cpu_count() or 1

    def start(self, folder: Path, planned: PlannedRun) -> Process:
        """Starts a run of the comparison in `folder`."""
        return LocalProcess(folder / "runs" / planned.name, planned.line())

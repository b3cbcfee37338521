"""Where the process of a run is started: on this machine here, on others by `cluster`. Both are waited for in the same way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cegm.lab.compare.plan import PlannedRun

LOG = "log.txt"

AGAIN = "trying again"
"""Ends every line of the log that tells of another try."""

CHANGED = 76
"""Exit code of a run whose text or model is not what it was when the run was planned: no other try, and no other run, would help."""

GRACE_SECONDS = 10.0

WORKER = ["-m", "cegm.lab.compare.worker"]

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTHONIOENCODING": "utf-8",  # of the log, whatever the terminal's
}
"""What a run's process sees differently."""


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
        environment = {**os.environ, **ENVIRONMENT}
        command = [sys.executable, *WORKER, str(run_folder), json.dumps(line)]
        with (run_folder / LOG).open("ab") as log:
            # The worker ends when this pipe does, so that none outlives a killed comparison and trains beside its successor.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, cwd=directory
            )

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Its exit code as soon as it has one; None after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """Asks it to end."""
        self._process.terminate()

    def close(self) -> None:
        """Waits until it has ended, which it is made to when it takes too long."""
        if self.wait(GRACE_SECONDS) is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


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

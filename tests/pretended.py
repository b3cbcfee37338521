"""Processes that only pretend to train: they die as often as a test wants."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cegm.lab.compare.launch import LocalProcess


def pretend(folder: Path, line: Mapping[str, Any], failures: int = 0) -> None:
    """Ends without a result `failures` times, and leaves a checkpoint then; after that it finishes."""
    tried = folder / "tries"
    count = int(tried.read_text()) + 1 if tried.exists() else 1
    tried.write_text(str(count))
    print("try", count)
    (folder / "metrics.jsonl").write_text('{"kind": "train", "step": 7}\n')
    (folder / "checkpoints").mkdir(exist_ok=True)
    if count <= failures:
        sys.exit("the disk is full")
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "weights").write_bytes(bytes(range(256)) * 10)
    (folder / "empty").touch()
    (folder / "result.json").write_text(json.dumps({"id": line["id"], "status": "finished", "tries": count}))
    (folder / "checkpoints").rmdir()


def sleep(folder: Path, line: Mapping[str, Any]) -> None:
    """Does not end by itself."""
    time.sleep(60)


def be_deaf(folder: Path, line: Mapping[str, Any]) -> None:
    """Does not end when it is asked to."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf")
    time.sleep(60)


def speak(folder: Path, line: Mapping[str, Any]) -> None:
    """Says what not every terminal can show."""
    print("\N{MINUS SIGN} \N{LATIN SMALL LETTER E WITH ACUTE}")


def tell(folder: Path, line: Mapping[str, Any]) -> None:
    """What a run's process sees."""
    print(json.dumps([os.getcwd(), os.environ["OMP_NUM_THREADS"], dict(line)]))


def wait(folder: Path, line: Mapping[str, Any]) -> None:
    """Finishes when a file `go` is in its folder."""
    print("begun", os.getpid())
    while not (folder / "go").exists():
        time.sleep(0.05)
    (folder / "result.json").write_text(json.dumps({"id": line["id"], "status": "finished"}))


class PretendedProcess(LocalProcess):
    """Pretends to train."""

    def __init__(
        self, run_folder: Path, line: dict[str, Any], directory: Path | None = None, *, failures: int = 0
    ) -> None:
        self.work = partial(pretend, failures=failures)  # type: ignore[method-assign]
        super().__init__(run_folder, line, directory)


class Sleeper(LocalProcess):
    """Does not end by itself."""

    work = staticmethod(sleep)


class Deaf(LocalProcess):
    """Does not end when it is asked to."""

    work = staticmethod(be_deaf)


class Speaker(LocalProcess):
    """Says what not every terminal can show."""

    work = staticmethod(speak)


class Told(LocalProcess):
    """Tells what it sees."""

    work = staticmethod(tell)


class Waiting(LocalProcess):
    """Finishes when a file `go` is in its folder."""

    work = staticmethod(wait)


class DiesOnce(PretendedProcess):
    """Ends without a result the first time."""

    def __init__(self, run_folder: Path, line: dict[str, Any], directory: Path | None = None) -> None:
        super().__init__(run_folder, line, directory, failures=1)

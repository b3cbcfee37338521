"""How far the runs of a plan are: the step of each, from what it has logged, and one bar over the steps of all."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cegm.lab.compare.plan import PlannedRun
from cegm.lab.train.run_config import DEFAULT_STEPS

TAIL_BYTES = 1 << 18
"""How much of the end of a file is read for its last line, which for a large model takes 75 kB and more; more where need be."""


class _Logged(msgspec.Struct):
    step: int


class StepReader:
    """The step that a run has logged last, from a file of metrics that grows, is cut by a resumption or replaced by another try.

    It is asked several times a second; only a file that has changed is read, and of that only its end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._step = 0

    def step(self) -> int:
        """That of the last whole line; 0 before the first, and where there is no file."""
        try:
            state = self._path.stat()
            seen = (state.st_ino, state.st_size, state.st_mtime_ns)
            if seen != self._seen:
                self._step, self._seen = _last_step(self._path), seen
        except OSError:
            self._step, self._seen = 0, ()
        return self._step


def _last_step(path: Path) -> int:
    with path.open("rb") as file:
        size, reach = file.seek(0, os.SEEK_END), TAIL_BYTES
        while True:
            file.seek(max(0, size - reach))
            _, *lines = (b"\n" * (reach >= size) + file.read()).split(b"\n")  # the first may have begun before
            for line in reversed(lines[:-1]):
                with suppress(ValueError):  # of another kind, or damaged
                    return msgspec.json.decode(line, type=_Logged).step
            if reach >= size:
                return 0
            reach *= 4


A_LINE = 60.0
"""Seconds between two lines where there is no terminal."""


def progress_bar() -> Progress:
    """A bar with what is happening, how far it is, and the time it took and will take; on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


class Bars:
    """One progress bar over the steps of all runs, with the runs in flight beside it, and a line for each that ends.

    Where standard error is no terminal, a line a minute takes the place of the bar.
    """

    def __init__(self, runs: list[PlannedRun]) -> None:
        self._progress = progress_bar()
        self._steps: dict[str, int] = {}
        self._titles: dict[str, str] = {}
        self._add(runs)
        self._task: TaskID = self._progress.add_task("starting", total=sum(self._steps.values()))
        self._finished: set[str] | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def expect(self, runs: list[PlannedRun]) -> None:
        """Adds runs that were planned later."""
        self._add(runs)
        self._progress.update(self._task, total=sum(self._steps.values()))

    def _add(self, runs: list[PlannedRun]) -> None:
        self._steps |= {run.id: run.config["max_steps"] or DEFAULT_STEPS for run in runs}
        self._titles |= {run.id: _title(run) for run in runs}

    def watch(self, running: list[tuple[PlannedRun, int]], results: Mapping[str, Mapping[str, Any]]) -> None:
        """Shows how far all runs are, which ones are in flight, and where those ended that were not there at the first look."""
        before = set(results) if self._finished is None else self._finished
        for run_id in (each for each in results if each not in before):
            self._say(_ending(self._titles[run_id], results[run_id]))
        self._finished = before | set(results)
        done = sum(self._steps[run_id] for run_id in self._finished) + sum(step for _, step in running)
        names = ", ".join(self._titles[run.id] for run, _ in running)
        text = f"{len(self._finished)} of {len(self._steps)} runs  {names}"
        self._progress.update(self._task, completed=done, description=text)
        if not self._progress.console.is_terminal and time.monotonic() - self._said >= A_LINE:
            task = self._progress.tasks[0]
            left = "" if task.time_remaining is None else f", about {task.time_remaining / 60:.0f} min left"
            self._say(f"{task.percentage:.0f} %, {text}{left}")

    def _say(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._said = time.monotonic()


def _title(run: PlannedRun) -> str:
    rate = f" at {run.config['learning_rate']:g}" if run.role == "front" else ""
    return f"{run.arm}{rate} seed {run.seed}"


def _ending(title: str, result: Mapping[str, Any]) -> str:
    """Where a run ended, in a line."""
    if result["status"] != "finished":
        return f"{title} failed: {result['error']}"
    return (
        f"{title}: {result['bits_per_byte']:.4f} bits per byte after {result['steps']} steps, {result['seconds']:.0f} s"
    )

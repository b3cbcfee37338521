"""One progress bar over the steps of all runs of a plan."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cegm.compare.plan import PlannedRun
from cegm.train.config import DEFAULT_STEPS


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
    """One progress bar over the steps of all runs, with the runs in flight beside it."""

    def __init__(self, runs: list[PlannedRun]) -> None:
        self._progress = progress_bar()
        self._steps = {run.id: run.config["max_steps"] or DEFAULT_STEPS for run in runs}
        self._task: TaskID = self._progress.add_task("starting", total=sum(self._steps.values()))
        self._finished: set[str] = set()

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def expect(self, runs: list[PlannedRun]) -> None:
        """Adds runs that were planned later."""
        self._steps |= {run.id: run.config["max_steps"] or DEFAULT_STEPS for run in runs}
        self._progress.update(self._task, total=sum(self._steps.values()))

    def watch(self, running: list[tuple[PlannedRun, int]], finished: Iterable[str]) -> None:
        """Shows how far all runs are, and which ones are in flight."""
        self._finished |= set(finished)
        done = sum(self._steps[run_id] for run_id in self._finished) + sum(step for _, step in running)
        names = ", ".join(f"{run.method} seed {run.seed}" for run, _ in running)
        text = f"{len(self._finished)} of {len(self._steps)} runs  {names}"
        self._progress.update(self._task, completed=done, description=text)

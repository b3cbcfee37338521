"""What lies in the folder that is watched: one run, or the runs of a comparison or a pilot, each with the baseline that it is held against."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from cegm.lab.baselines import SUBJECT, ordered
from cegm.lab.compare.plan import run_name
from cegm.lab.records import Planned
from cegm.lab.strict import json_lines, json_object
from cegm.lab.watch.chain_events import ChainEvents
from cegm.lab.watch.watched_run import WatchedRun

PAIRED_ROLES = ("main", "front")
"""Roles whose runs take the same steps on the same batches as the baseline on their seed."""

ALONE, BESIDE = "run", "baseline"
"""Ids of a run that is watched by itself, and of the one that was given to be beside it."""

RUN_FILES = ("metrics.jsonl", "config.yaml", "audit.jsonl")


class Watched:
    """The runs under a path, which may grow in number.

    Args:
        path: Folder of a run, a comparison or a pilot; of a run of a comparison, that is watched, and the run shown first.
        baseline: Run folder that runs without a baseline of their own are held against; empty for none.

    Attributes:
        kind: `run`, `comparison` or `pilot`.
        name: Of the folder.
        first: Id of the run that was asked for; empty for whichever is under way.
        runs: By id, in the order of the plan.
        events: Audit log of a pilot.
        lock: Held by who looks.

    Raises:
        ValueError: There is nothing of that kind.
    """

    def __init__(self, path: Path, baseline: str = "") -> None:
        path = path.expanduser().resolve()
        self.name, self.first, self.kind = path.name, "", "comparison"
        self.runs: dict[str, WatchedRun] = {}
        self.lock = threading.RLock()
        self._comparison, self._pilot, self._plan_seen = path, path, (0, 0)
        if (path / "pilot.yaml").exists():
            self.kind, self._comparison = "pilot", path / "comparison"
        elif not _is_comparison(path):
            if not _is_run(path):
                raise ValueError(f"{path} is no run, comparison or pilot; give the output_dir of one that has begun")
            if path.parent.name == "runs" and _is_comparison(path.parent.parent):
                self.first, self._comparison = path.name.rsplit("-", 1)[-1], path.parent.parent
            else:
                self.kind, self.runs = "run", {ALONE: WatchedRun(ALONE, path)}
        self.events = ChainEvents(self._pilot / "audit.jsonl")
        self._beside = _beside(baseline)
        self.look()

    def look(self) -> None:
        """Looks for new runs, and at those that have not finished and what they are held against."""
        if self.kind == "run":
            run = self.runs[ALONE]
            run.pair = BESIDE if self._beside else ""
        else:
            self._look_at_plan()
        if self.kind == "pilot":
            self.events.look()
        if self._beside is not None:
            self.runs[BESIDE] = self._beside
        for run in list(self.runs.values()):
            run.look()
            if run.is_open and run.pair:
                self.runs[run.pair].lines.look()

    def pair_of(self, run: WatchedRun) -> WatchedRun | None:
        """The run that one is held against."""
        return self.runs.get(run.pair)

    def shown_first(self) -> str:
        """Id of the run that was asked for, else of one that is held against another, under way if any is, CEGM's before others."""
        runs = [run for run in self.runs.values() if run.id != BESIDE]
        order = sorted(runs, key=_standing)
        return self.first or (order[0].id if order else "")

    def verdict(self) -> str:
        """What a pilot, or nothing else, has come to: GO, HOLD or STOP; empty before."""
        if self.kind != "pilot":
            return ""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json_object(self._pilot / "verdict.json")["decision"]["word"])
        return ""

    def _look_at_plan(self) -> None:
        plan = self._comparison / "plan.jsonl"
        with suppress(OSError, ValueError):  # not there yet, or half written on a share
            state = plan.stat()
            seen = (state.st_size, state.st_mtime_ns)
            if seen == self._plan_seen:
                return
            planned = [msgspec.convert(line, Planned) for _, line in json_lines(plan, growing=True)]
            self.runs = {each.id: self.runs.get(each.id) or self._run(each) for each in planned}
            self._pair()
            self._plan_seen = seen

    def _run(self, planned: Planned) -> WatchedRun:
        arm = planned.arm if isinstance(planned.arm, str) else planned.method
        folder = self._comparison / "runs" / run_name(planned.method, planned.seed, planned.role, planned.id)
        return WatchedRun(planned.id, folder, arm, planned.method, planned.seed, planned.role, planned.config)

    def _pair(self) -> None:
        arms = ordered(run.arm for run in self.runs.values())
        baselines = {run.seed: run.id for run in self.runs.values() if run.arm == arms[-1] and run.role == "main"}
        for run in self.runs.values():
            own = run.role in PAIRED_ROLES and run.arm != arms[-1]
            run.pair = baselines.get(run.seed, "") if own else ""
            run.pair = run.pair or (BESIDE if self._beside is not None else "")


def _standing(run: WatchedRun) -> tuple[bool, ...]:
    return run.state != "running", not run.pair, run.state == "waiting", run.method != SUBJECT


def _is_comparison(path: Path) -> bool:
    return (path / "plan.jsonl").exists() or (path / "runs").is_dir()


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in RUN_FILES)


def _beside(baseline: str) -> WatchedRun | None:
    if not baseline:
        return None
    path = Path(baseline).expanduser().resolve()
    if not _is_run(path):
        raise ValueError(f"baseline={baseline!r} is no run; give the output_dir of one that has begun")
    return WatchedRun(BESIDE, path)

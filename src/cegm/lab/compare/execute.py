"""Executes a plan: as many single-threaded processes as there is room for, each run tried twice, none ever dropped.

A run that left checkpoints goes on from the newest whole one, in the second try as in the next execution of the plan.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cegm.durable import write_whole
from cegm.lab.compare.inputs import CHANGED
from cegm.lab.compare.launch import AGAIN, LOG, Launcher, LocalLauncher, Process
from cegm.lab.compare.plan import PlannedRun
from cegm.lab.compare.progress import StepReader
from cegm.lab.strict import json_object

ATTEMPTS = 2
"""Tries of a run."""
POLL_SECONDS = 0.2

Watcher = Callable[[list[tuple[PlannedRun, int]], Mapping[str, Mapping[str, Any]]], None]
"""Called while runs execute with the runs in flight and their current step, and the ids of those that ended."""


@contextmanager
def launching(name: str, processes: int) -> Iterator[Launcher]:
    """The launcher of that name, `local` or `ray`, until the end of the block, for so many runs at a time (0: one per core)."""
    if name == "local":
        yield LocalLauncher(processes)
        return
    from cegm.lab.compare.cluster import Cluster

    cluster = Cluster(processes)
    try:
        yield cluster
    finally:
        cluster.close()


def result_of(folder: Path, planned: PlannedRun) -> dict[str, Any] | None:
    """The valid result of a run: whole, of this very plan line, and finished; None otherwise."""
    path = folder / "runs" / planned.name / "result.json"
    try:
        result = json_object(path)
    except (OSError, ValueError):
        return None
    return result if result.get("id") == planned.id and result.get("status") == "finished" else None


def execute(folder: Path, runs: list[PlannedRun], launcher: Launcher, watch: Watcher) -> dict[str, dict[str, Any]]:
    """Brings every run of the plan to a result; ValueError where what a run reads was changed after it had been planned.

    Results are by run id; a run that failed twice has `status` failed and its last words as `error`.
    """
    runs = list({run.id: run for run in runs}.values())  # a change of nothing is the run of its base
    results = {run.id: found for run in runs if (found := result_of(folder, run))}
    waiting = [(run, 1) for run in runs if run.id not in results]
    running: list[tuple[PlannedRun, int, Process]] = []
    logs = {run.id: StepReader(folder / "runs" / run.name / "metrics.jsonl") for run in runs}
    try:
        while waiting or running:
            while waiting and len(running) < launcher.slots():
                planned, attempt = waiting.pop(0)
                running.append((planned, attempt, launcher.start(folder, planned)))
            time.sleep(POLL_SECONDS)
            for each in list(running):
                planned, attempt, process = each
                if (code := process.poll()) is None:
                    continue
                running.remove(each)
                process.close()
                result = _settle(folder, planned, attempt, code)
                if result is None:
                    waiting.insert(0, (planned, attempt + 1))
                else:
                    results[planned.id] = result
            watch([(planned, logs[planned.id].step()) for planned, _, _ in running], results)
    finally:
        for _, _, process in running:  # interrupted: leave no process behind; the plan goes on from here next time
            process.stop()
        for _, _, process in running:
            process.close()
    return results


def _settle(folder: Path, planned: PlannedRun, attempt: int, code: int) -> dict[str, Any] | None:
    """The result of a process that ended, or None when it is to be tried again."""
    result = result_of(folder, planned)
    run_folder = folder / "runs" / planned.name
    if code == CHANGED:
        raise ValueError(_last_words(run_folder))
    if result is None and attempt < ATTEMPTS:
        line = (
            f"cegm: warning: try {attempt} of {planned.arm} seed {planned.seed} ended without a result "
            f"(exit code {code}); {AGAIN}"
        )
        print(line, file=sys.stderr)
        with (run_folder / LOG).open("a", encoding="utf-8") as log:
            log.write(line + "\n")
        return None
    if result is None:
        result = {
            "id": planned.id,
            "method": planned.method,
            "seed": planned.seed,
            "role": planned.role,
            "status": "failed",
            "error": f"{_last_words(run_folder)} (exit code {code})",
        }
    result["attempts"] = attempt
    write_whole(run_folder / "result.json", json.dumps(result, indent=1))
    return result


def _last_words(run_folder: Path) -> str:
    lines = (run_folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    own = [line for line in lines if not line.endswith(AGAIN)]
    return own[-1] if own else "no output"

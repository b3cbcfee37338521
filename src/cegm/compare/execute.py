"""Executes a plan on this machine: as many single-threaded processes as fit the cores, each run tried twice, none ever dropped.

A run that left checkpoints goes on from the newest whole one, in the second try as in the next execution of the plan.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegm.compare.plan import PlannedRun
from cegm.train.durable import write_whole

ATTEMPTS = 2
POLL_SECONDS = 0.2

Watcher = Callable[[list[tuple[PlannedRun, int]], Iterable[str]], None]
"""Called while runs execute with the runs in flight and their current step, and the ids of those that ended."""


@dataclass
class _Running:
    planned: PlannedRun
    process: subprocess.Popen[bytes]
    attempt: int


def result_of(folder: Path, planned: PlannedRun) -> dict[str, Any] | None:
    """The valid result of a run: whole, of this very plan line, and finished; None otherwise."""
    path = folder / "runs" / planned.name / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    valid = isinstance(result, dict) and result.get("id") == planned.id and result.get("status") == "finished"
    return result if valid else None


def execute(folder: Path, runs: list[PlannedRun], workers: int, watch: Watcher) -> dict[str, dict[str, Any]]:
    """Brings every run of the plan to a result.

    Args:
        folder: Comparison folder.
        runs: The plan.
        workers: Processes at a time.
        watch: Shows progress.

    Returns:
        Results by run id; a run that failed twice has `status` failed and its last words as `error`.
    """
    results = {run.id: found for run in runs if (found := result_of(folder, run))}
    waiting = [(run, 1) for run in runs if run.id not in results]
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                planned, attempt = waiting.pop(0)
                running.append(_Running(planned, _start(folder, planned), attempt))
            time.sleep(POLL_SECONDS)
            for each in [r for r in running if r.process.poll() is not None]:
                running.remove(each)
                if each.process.stdin is not None:
                    each.process.stdin.close()
                result = _settle(folder, each)
                if result is None:
                    waiting.insert(0, (each.planned, each.attempt + 1))
                else:
                    results[each.planned.id] = result
            watch([(r.planned, current_step(folder, r.planned)) for r in running], results)
    finally:
        for each in running:  # interrupted: leave no process behind; the plan goes on from here next time
            each.process.terminate()
        for each in running:
            each.process.wait()
    return results


def _start(folder: Path, planned: PlannedRun) -> subprocess.Popen[bytes]:
    run_folder = folder / "runs" / planned.name
    run_folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cegm.compare.worker", str(run_folder), json.dumps(planned.line())]
    with (run_folder / "log.txt").open("wb") as log:
        # The worker ends when this pipe does, so that none outlives a killed comparison and trains beside its successor.
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)


def _settle(folder: Path, ended: _Running) -> dict[str, Any] | None:
    """The result of a process that ended, or None when it is to be tried again."""
    result = result_of(folder, ended.planned)
    run_folder = folder / "runs" / ended.planned.name
    if result is None and ended.attempt < ATTEMPTS:
        return None
    if result is None:
        result = {
            "id": ended.planned.id,
            "method": ended.planned.method,
            "seed": ended.planned.seed,
            "role": ended.planned.role,
            "status": "failed",
            "error": _last_words(run_folder, ended.process.returncode),
        }
    result["attempts"] = ended.attempt
    write_whole(run_folder / "result.json", json.dumps(result, indent=1))
    return result


def _last_words(run_folder: Path, code: int) -> str:
    lines = (run_folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no output'} (exit code {code})"


def current_step(folder: Path, planned: PlannedRun) -> int:
    """The last step that a running run has logged; 0 before the first."""
    try:
        tail = (folder / "runs" / planned.name / "metrics.jsonl").read_bytes()[-20_000:].splitlines()
    except OSError:
        return 0
    for line in reversed(tail):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0

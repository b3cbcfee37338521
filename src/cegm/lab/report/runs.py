"""Reads a comparison or run folder into plain records; no other part of the report reads files."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cegm.lab.baselines import BASE, ordered
from cegm.lab.records import Described, Metrics, Planned, Result, checked
from cegm.lab.strict import json_lines, json_object, read_text, yaml_value
from cegm.lab.train import verification

Record = dict[str, Any]

VERDICT = "verdict.json"
VERDICT_KEYS = frozenset({"methods", "runs", "failed", "refused", "target_loss", "screening", "statement", "measures"})
OVERHEAD = "overhead.json"
DRILL = "drill.json"
FRONT = "front.json"
FRONT_KEYS = frozenset({"reference", "methods", "shares", "rates", "endings", "before", "measures"})
MEASURED = {
    OVERHEAD: frozenset({"how", "hardware", "reference", "methods", "points"}),
    DRILL: frozenset({"how", "hardware", "methods", "spikes", "after", "healed", "points"}),
}
"""Files of what a comparison measures beside its runs when asked to, in the order of `Folder`, and what each must hold."""


@dataclass
class Run:
    """One run as its folder tells it.

    Attributes:
        name: Folder name.
        method: Its arm: the optimizer, or in an ablation the change.
        seed: Seed of weights and batches.
        role: `main` or `equal_seconds`.
        status: `finished`, `failed`, or `missing` (planned, without a result).
        error: What a failed run died of.
        result: Content of `result.json`; for a folder of one run the final line of its metrics, too.
        config: Content of `config.yaml`.
        train: Training lines of `metrics.jsonl`.
        validation: Validation lines of `metrics.jsonl`.
    """

    name: str
    method: str
    seed: int
    role: str
    status: str
    error: str | None = None
    result: Record = field(default_factory=dict)
    config: Record = field(default_factory=dict)
    train: list[Record] = field(default_factory=list)
    validation: list[Record] = field(default_factory=list)


@dataclass
class Folder:
    """What a page is drawn from.

    Attributes:
        path: The folder.
        is_comparison: False for the folder of a single run.
        runs: In the order of the plan.
        verdict: Content of `verdict.json`; None if it has not been judged.
        overhead: Content of `overhead.json`, whose schema stands at `cegm.lab.compare.overhead`; None if it was not measured.
        drill: Content of `drill.json`, whose schema stands at `cegm.lab.compare.drill`; None likewise.
        front: Content of `front.json`, whose schema stands at `cegm.lab.compare.front_verdict`; None likewise.
    """

    path: Path
    is_comparison: bool
    runs: list[Run]
    verdict: Record | None
    overhead: Record | None = None
    drill: Record | None = None
    front: Record | None = None

    def finished(self, role: str = "main") -> list[Run]:
        """Runs with a result."""
        return [run for run in self.runs if run.status == "finished" and run.role == role]

    @property
    def methods(self) -> list[str]:
        """All arms of the folder, in the order of `cegm.lab.baselines.ordered`."""
        return ordered(run.method for run in self.runs)

    @property
    def is_ablation(self) -> bool:
        """Whether its arms are changes of one base."""
        return BASE in self.methods


def read(path: Path) -> Folder:
    """Reads a comparison folder (it has `plan.jsonl` or `runs/`) or a run folder (it has `metrics.jsonl`).

    Raises:
        ValueError: If the folder is neither, or one of its files is damaged (file and line are named).
    """
    if (path / "plan.jsonl").exists() or (path / "runs").is_dir():
        again = "compare again to write it anew"
        judged, front = (
            _whole(path / name, keys, again) if (path / name).exists() else None
            for name, keys in ((VERDICT, VERDICT_KEYS), (FRONT, FRONT_KEYS))
        )
        overhead, drill = measured(path)
        return Folder(path, True, _planned_runs(path), judged, overhead, drill, front)
    if (path / "metrics.jsonl").exists():
        return Folder(path, False, [_single_run(path)], None)
    raise ValueError(f"{path} is neither a comparison nor a run folder: it has no plan.jsonl, runs/ or metrics.jsonl")


def measured(path: Path) -> list[Record | None]:
    """Content of each of `MEASURED` in a comparison folder; None where there is none of the text and model of the runs beside it.

    Raises:
        ValueError: If one of them is damaged.
    """
    plan = _lines(path / "plan.jsonl", Planned)
    inputs = plan[0].get("inputs") if plan else None
    if isinstance(inputs, dict):
        after = ("axes_data", "general")  # read after training
        inputs = {name: value for name, value in inputs.items() if name not in after}
    return [_measured(path / name, keys, inputs) for name, keys in MEASURED.items()]


def _measured(file: Path, keys: frozenset[str], inputs: Record | None) -> Record | None:
    """Content of a file, unless it was measured on other inputs than these; None: of before they were kept."""
    if not file.exists():
        return None
    found = _whole(file, keys, f"delete it and compare again with --{file.stem}")
    return found if inputs is None or found.get("inputs") == inputs else None


def _whole(file: Path, keys: frozenset[str], remedy: str) -> Record:
    found = json_object(file, nan_is_null=True)
    missing = keys - set(found)
    if missing:
        raise ValueError(f"{file} lacks {', '.join(sorted(missing))}; {remedy}")
    return found


def _planned_runs(path: Path) -> list[Run]:
    found = [folder for folder in sorted((path / "runs").glob("*")) if folder.is_dir()]
    folders = {folder.name.rsplit("-", 1)[-1]: folder for folder in found}
    plan = _lines(path / "plan.jsonl", Planned)
    if not plan:
        results = [folder / "result.json" for folder in found]
        plan = [_read(file, Planned) for file in results if file.exists()]
    return [_planned_run(line, folders.get(line["id"])) for line in plan]


def _planned_run(line: Record, folder: Path | None) -> Run:
    run = Run(str(line["id"]), str(line.get("arm", line["method"])), int(line["seed"]), str(line["role"]), "missing")
    if folder is None:
        return run
    run.name = folder.name
    _read_logs(run, folder)
    file = folder / "result.json"
    if file.exists():
        run.result = _read(file, Result)
        run.status = "finished" if run.result.get("status") == "finished" else "failed"
        run.error = run.result.get("error")
    return run


def _single_run(path: Path) -> Run:
    run = Run(path.name, "", 0, "main", "missing")
    final = _read_logs(run, path)
    config = run.config.get("config", {})
    run.method, run.seed = str(config.get("method", "unknown")), int(config.get("seed", 0))
    if final is not None:
        run.status, run.result = "finished", final
    result = path / "result.json"
    if result.exists():  # a run of a comparison: it has been examined too
        run.result |= _read(result, Result)
    return run


def _read_logs(run: Run, folder: Path) -> Record | None:
    """Fills configuration and curves; returns the final line, if the run got there."""
    _require_as_logged(folder)
    config = folder / "config.yaml"
    if config.exists():
        run.config = yaml_value(read_text(config), str(config)) or {}
        checked(run.config, Described, str(config))
    final = None
    for line in _lines(folder / "metrics.jsonl", Metrics):
        if line.get("kind") == "train":
            run.train.append(line)
        elif line.get("kind") == "validation":
            run.validation.append(line)
        elif line.get("kind") == "final":
            final = line
    return final


def _require_as_logged(folder: Path) -> None:
    """Refuses a run whose files are not those that its audit log tells of, if it has one."""
    if not (folder / "audit.jsonl").exists():
        return
    damaged = [finding for finding in verification.records(folder) if finding.state == "damaged"]
    if damaged:
        first = damaged[0]
        raise ValueError(f"{folder / first.part} {first.detail}; restore it, cegm verify {folder} tells what is whole")


def _lines(path: Path, kind: Any) -> list[Record]:
    if not path.exists():
        return []
    # NaN and infinities become None, since neither JSON nor a chart has them.
    lines = json_lines(path, growing=True, nan_is_null=True)
    for place, record in lines:
        checked(record, kind, place)
    return [record for _, record in lines]


def _read(path: Path, kind: type[Any]) -> Record:
    record = json_object(path, nan_is_null=True)
    checked(record, kind, str(path))
    return record


def finite(value: Any) -> float | None:
    """The value as a float, or None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None

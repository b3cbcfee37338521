"""`cegm compare` and `cegm ablate` from configuration to verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from cegm.durable import sole_writer, write_whole
from cegm.lab.compare.compare_config import FORGETTING, CompareConfig, begins_at_random
from cegm.lab.compare.drill import measure_drill
from cegm.lab.compare.execute import execute, launching
from cegm.lab.compare.front_verdict import write_front
from cegm.lab.compare.inputs import inputs, require_same
from cegm.lab.compare.launch import Launcher
from cegm.lab.compare.overhead import measure_overhead, step_ratios
from cegm.lab.compare.plan import (
    BEFORE,
    EXAMINATION_SEED,
    PlannedRun,
    kept_equal_seconds,
    plan_equal_seconds,
    plan_front,
    plan_main,
    read_plan,
    write_plan,
)
from cegm.lab.compare.progress import Bars
from cegm.lab.compare.verdict import write_verdict
from cegm.lab.report.runs import MEASURED, measured
from cegm.lab.strict import json_lines, parquet_table
from cegm.lab.train.run_config import RunConfig


def compare(config: CompareConfig) -> Path:
    """Plans, executes what is missing, writes results and verdict, and measures overhead and drill if asked to.

    Returns the folder. ValueError, before the first run starts, for what would make every run fail.
    """
    folder = Path(config.output_dir)
    main = plan_main(config)
    require_possible(config)
    if not begins_at_random(config.shared):
        print("\n".join(dict.fromkeys(config.run(arm, config.seed_list[0]).pace for arm in config.arms)))
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder):
        with launching(config.launcher, config.processes) as launcher:
            _compare(config, folder, main, launcher)
        write_verdict(folder, config.equal_seconds, config.parts)
        if config.front:
            write_front(folder)
        if config.overhead:
            measure_overhead(config, folder)
        if config.drill:
            measure_drill(config, folder)
        _tell_what_is_not_shown(folder)
    return folder


def _tell_what_is_not_shown(folder: Path) -> None:
    from cegm.lab.train.prepare import tell

    for name, shown in zip(MEASURED, measured(folder), strict=True):
        if shown is None and (folder / name).exists():
            tell([f"{folder / name} is of another text or model and not shown; --{Path(name).stem} measures it again"])


def _compare(config: CompareConfig, folder: Path, main: list[PlannedRun], launcher: Launcher) -> None:
    if FORGETTING in config.examination["axes"]:
        _look_before(folder, main[0])
    kept = kept_equal_seconds(config, read_plan(folder), main)
    runs = [*main, *plan_front(config)]
    write_plan(folder, runs + (kept or []))
    with Bars(runs) as bars:
        results = execute(folder, runs, launcher, bars.watch)
        for run in main:
            require_same(run.inputs, run.config, run.evaluation)
        if config.equal_seconds:
            # Controls are given time by the interleaved steps that an ablation measures in any case.
            ratios = step_ratios(measure_overhead(config, folder)) if config.parts and kept is None else None
            equal = plan_equal_seconds(config, main, results, ratios) if kept is None else kept
            runs = main + equal
            write_plan(folder, runs)
            bars.expect(equal)
            results |= execute(folder, equal, launcher, bars.watch)
    write_results(folder, runs, results)


def _look_before(folder: Path, run: PlannedRun) -> None:
    """Lets the model before write and answer once, for all runs; ValueError where general text cannot be read."""
    from cegm.lab.tasks.forgetting import write_before

    asked = {**run.evaluation, "axes": [FORGETTING]}
    hashes = {name: each for name, each in inputs(run.config, asked).items() if name not in ("data", "validation_data")}
    config, drawn = RunConfig(**run.config), (asked["items"], EXAMINATION_SEED)
    write_before(folder / BEFORE, config, asked["general"], asked["source"], *drawn, hashes)


def require_possible(config: CompareConfig) -> None:
    """Raises ValueError for axes, text, model or options that would make every run of an arm, or the drill, fail; tells what is left out."""
    from cegm.lab.train.prepare import prepare, quieten, tell
    from cegm.lab.train.trainer import build

    quieten()
    if config.examination["axes"]:
        from cegm.lab.tasks.axes import chosen

        chosen(",".join(config.examination["axes"]))
    runs = [config.run(arm, config.seed_list[0]) for arm in config.arms]
    parts = prepare(runs[0])
    if config.drill and parts.corpus.kind != "text":
        raise ValueError(
            f"the drill needs plain text, and {runs[0].data} holds {parts.corpus.kind} rows; leave --drill out"
        )
    tell(parts.notes)
    for run in runs:
        build(run, parts.model)


def write_results(folder: Path, runs: list[PlannedRun], results: dict[str, dict[str, Any]]) -> None:
    """`results.parquet` (a row per run) and `items.parquet` (a row per scored item); `method` is there the name of the arm."""
    rows = [{**results[run.id], "method": run.arm} for run in runs]
    flat = [{name: json.dumps(v) if isinstance(v, dict) else v for name, v in row.items()} for row in rows]
    # Unknown where the command was stopped after a run had ended and before it took note.
    counted = [{**row, "attempts": row.get("attempts")} for row in flat]
    write_whole(folder / "results.parquet", pd.DataFrame(counted).astype({"attempts": "Int64"}).to_parquet())
    items: list[dict[str, Any]] = []
    for run in runs:
        path = folder / "runs" / run.name / "items.jsonl"
        if results[run.id]["status"] == "finished" and path.exists():
            own = {"id": run.id, "method": run.arm, "seed": run.seed, "role": run.role}
            items += [{**own, **item} for item in _items(path)]
    write_whole(folder / "items.parquet", pd.DataFrame(items).to_parquet())


def _items(path: Path) -> list[dict[str, Any]]:
    try:
        return [item for _, item in json_lines(path)]
    except ValueError as error:
        raise ValueError(f"{error}; delete {path.parent} to run it again") from None


def all_finished(folder: Path) -> bool:
    """Whether no run of the comparison failed."""
    return bool((parquet_table(folder / "results.parquet")["status"] == "finished").all())

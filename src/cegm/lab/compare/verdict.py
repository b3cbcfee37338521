"""The verdict of a comparison: every measure, every pair of methods, one cautious word.

`write_verdict` turns `results.parquet`, `items.parquet` and the validation curves of the runs into `verdict.json`;
`judge` does the same for frames. The rules:

- Runs are paired by seed. Two runs are compared only if their hashes prove the same initial weights and, at equal
  steps, the same batches; otherwise that seed is refused for that pair, in one line.
- With `CLAIM_SEEDS` planned seeds or more, "better" and "worse" need a sign-flip p of at most .05 after Holm, and an
  interval that excludes "no difference". With fewer, no such p can be reached, so the word says only whether the 95 %
  interval excludes "no difference".
- Whether a statement is a claim or a screening follows the seeds that could be paired, not those that were planned. An
  interval is shown from `INTERVAL_SEEDS` paired seeds on, below them the effect on each seed.
- Holm's families: the primary measure of each axis over all pairs; every other measure over its pairs, marked
  exploratory.
- Methods are paired with each other; the changes of an ablation each with their base. A change that was declared to alter
  weights or batches is compared although its hashes differ.
- A failed run is listed, and a method is never called better than another on seeds where it failed and the other did
  not. A method of which every run failed is named, and the other pairs are judged without it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cegm.durable import write_whole
from cegm.lab.baselines import BASE, REFERENCE, SUBJECT, ordered
from cegm.lab.compare import secondary
from cegm.lab.compare.arms import Part
from cegm.lab.compare.item_statistics import axis_levels, axis_values, item_effect, item_tests, joined, primary_items
from cegm.lab.compare.measures import MEASURES, Measure, about, with_axes
from cegm.lab.compare.pairing import Pair, failed, finished, paired_seeds, refused
from cegm.lab.compare.plan import SAME_SECONDS
from cegm.lab.compare.seed_statistics import CLAIM_SEEDS, Difference, holm, paired_difference, paired_ratio
from cegm.lab.compare.standing import LEVEL, standing
from cegm.lab.strict import json_lines, parquet_table

REQUIRED = (
    *("id", "method", "seed", "role", "status", "error", "attempts", "initial_hash", "batch_hash", "steps"),
    *("final_loss", "bits_per_byte", "median_step_seconds", "memory_bytes", "optimizer_state_bytes"),
)


def write_verdict(folder: Path, equal_seconds: bool = True, parts: Sequence[Part] = ()) -> Path:
    """Judges a comparison folder and writes `verdict.json` into it in one move; ValueError where results are missing or damaged."""
    if not (folder / "results.parquet").exists():
        raise ValueError(f"no results.parquet in {folder}: run `cegm compare` to the end, or name another folder")
    results = parquet_table(folder / "results.parquet")
    items = parquet_table(folder / "items.parquet") if (folder / "items.parquet").exists() else pd.DataFrame()
    verdict = judge(results, items, read_curves(folder), equal_seconds, parts)
    return write_whole(folder / "verdict.json", json.dumps(verdict, indent=1, allow_nan=False))


def read_curves(folder: Path) -> pd.DataFrame:
    """Validation curves of all runs: columns `id`, `step`, `tokens`, `seconds`, `loss`, `bits_per_byte`; ValueError for a damaged line."""
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "runs").glob("*/metrics.jsonl")):
        run_id = path.parent.name.rsplit("-", 1)[-1]  # the folder's name ends with the id of the run
        lines = json_lines(path, growing=True, having='"validation"')  # a run that was killed may have cut its last
        rows += [{"id": run_id, **line} for _, line in lines]
    return pd.DataFrame(rows, columns=["id", "step", "tokens", "seconds", "loss", "bits_per_byte"])


def judge(
    results: pd.DataFrame,
    items: pd.DataFrame,
    curves: pd.DataFrame,
    equal_seconds: bool = True,
    parts: Sequence[Part] = (),
) -> dict[str, Any]:
    """Compares all pairs of methods, or every change with its base, on all measures.

    Args:
        results: One row per run: the fields of `result.json`.
        items: One row per scored item: `method`, `seed`, `role` and the fields of `cegm.lab.tasks.items.Record`; may be empty.
        curves: Validation curves as `read_curves` gives them; may be empty.
        equal_seconds: Whether equal training time was asked for; if not, nothing is judged by it.
        parts: Of an ablation, its changes.

    Returns:
        The content of `verdict.json`: plain values only, no NaN.
    """
    # Failed runs lack most fields; if all runs of a kind failed, the columns themselves are missing.
    results = results.reindex(columns=results.columns.union(list(REQUIRED)))
    target = _target(results)
    results = results.assign(steps_to_target=[_steps_to_target(run_id, curves, target) for run_id in results["id"]])
    methods = ordered(results["method"])
    pairs = list(itertools.combinations(methods, 2))
    if BASE in methods:
        pairs = [(method, BASE) for method in methods if method != BASE]
        others = {arm.name for part in parts for arm in part.arms if not arm.reads_as_others_do}
        results = results.assign(reads_otherwise=results["method"].isin(others))
    main = results[results["role"] == "main"]
    paired = {pair: paired_seeds(main, pair) for pair in pairs}
    timed = target is not None and not curves.empty  # without a target nobody can reach or miss it
    primary = primary_items(items)
    declared = with_axes(MEASURES, primary["axis"].unique() if len(primary) else ())
    measures = []
    for measure in declared:
        runs = _relevant(measure, results)
        if (measure.kind == "time" and not timed) or (measure.name == "equal_seconds" and not equal_seconds):
            runs = runs.iloc[:0]
        own = primary[primary["axis"] == measure.name] if len(primary) else primary
        entries = [_pair(measure, pair, runs, own) for pair in pairs]
        measures.append({**about(measure), "methods": _summaries(measure, runs, own), "pairs": entries})
    adjust(measures)
    planned = int(results["seed"].nunique())
    fallen = [method for method in methods if method not in set(finished(main)["method"])]
    for measure, judged in zip(declared, measures, strict=True):
        for entry in judged["pairs"]:
            entry["word"] = word(measure, entry, strict=planned >= CLAIM_SEEDS)
    return {
        "methods": methods,
        "seeds": sorted(int(seed) for seed in results["seed"].unique()),
        "runs": {"planned": len(results), "finished": len(finished(results))},
        "failed": failed(results),
        "failed_methods": fallen,
        "refused": refused(results, pairs),
        "target_loss": target,
        **standing(measures, planned, fallen),
        "measures": measures,
        "axes": axis_levels(items, methods, paired),
        "survival": secondary.survival_curves(main, methods) if timed else None,
        "no_loss": secondary.no_loss(main, paired),
        "cost_per_correct": secondary.cost_per_correct(main, primary),
        **({"parts": [_about(part) for part in parts]} if parts else {}),
    }


def _about(part: Part) -> dict[str, Any]:
    return {"part": part.name, "question": part.question, "arms": [arm.name for arm in part.arms]}


def _relevant(measure: Measure, results: pd.DataFrame) -> pd.DataFrame:
    """The runs, finished or failed, that answer a measure: one per method and seed at most."""
    main = results[results["role"] == "main"]
    if measure.name != "equal_seconds":
        return main
    equal = results[results["role"] == "equal_seconds"]
    if BASE in set(main["method"]):  # its changes were given time by steps timed in turns, not by those of runs
        return pd.concat([main[main["method"] == BASE], equal])
    seconds = finished(main).groupby("method")["median_step_seconds"].median()
    if SUBJECT not in seconds.index:
        return main.iloc[:0]
    # A method whose step takes as long as the subject's has one run for both questions.
    same = [m for m in seconds.index if abs(seconds[SUBJECT] / seconds[m] - 1) < SAME_SECONDS]
    return pd.concat([main[main["method"].isin(set(same) - set(equal["method"]))], equal])


def _pair(measure: Measure, pair: Pair, runs: pd.DataFrame, items: pd.DataFrame) -> dict[str, Any]:
    """One row of the verdict: `pair[0]` against `pair[1]`; `items` are those of the measure."""
    seeds = paired_seeds(runs, pair)
    both = joined(items, pair, seeds) if measure.kind == "items" and len(items) else pd.DataFrame()
    effect = item_effect(both, seeds) if measure.kind == "items" else _effect(measure, runs, pair, seeds)
    failures = runs[(runs["status"] != "finished") & runs["method"].isin(pair)]
    count = 0 if effect is None else effect.seeds
    tested = effect is not None and measure.kind != "count"
    return {
        "pair": list(pair),
        "n": count,
        "screening": count < CLAIM_SEEDS,
        "seeds": seeds,
        "failed": [{"method": row["method"], "seed": int(row["seed"])} for row in failures.to_dict("records")],
        "effect": None if effect is None else effect.estimate,
        "interval": None if effect is None or effect.low is None else [effect.low, effect.high],
        "points": [] if effect is None else list(effect.points),
        "beyond_chance": effect is not None and effect.beyond_chance,
        "p": effect.p if effect is not None and tested else None,
        "smallest_detectable": effect.smallest_detectable if effect is not None and tested else None,
        "method": None if effect is None else effect.interval_method if tested else "exact counts, no test",
        **({"mcnemar": item_tests(both)} if measure.kind == "items" else {}),
    }


def _effect(measure: Measure, runs: pd.DataFrame, pair: Pair, seeds: list[int]) -> Difference | None:
    """The paired effect of what is a column of the results; None if it was not measured."""
    if not seeds:
        return None
    done = finished(runs)
    first, second = (done[done["method"] == method].set_index("seed").loc[seeds] for method in pair)
    own, other = (side[measure.column].astype(float).tolist() for side in (first, second))
    if measure.kind == "time":
        # Every run is followed to the horizon, so that the area under its Kaplan-Meier curve is the mean of min(time, horizon).
        horizon = float(max(first["steps"].max(), second["steps"].max()))
        return paired_difference(*(np.fmin(side, horizon).tolist() for side in (own, other)))
    if not all(math.isfinite(value) for value in own + other):
        return None
    if measure.kind == "difference":
        return paired_difference(own, other)
    return paired_ratio(own, other) if min(own + other) > 0 else None


def _target(results: pd.DataFrame) -> float | None:
    """Mean final loss of the reference, in nats per token, fixed without looking at any other method; None if no run of it finished."""
    rows = finished(results[(results["method"] == REFERENCE) & (results["role"] == "main")])
    return None if rows.empty else float(rows["final_loss"].mean())


def _steps_to_target(run_id: str, curves: pd.DataFrame, target: float | None) -> float:
    """Steps at the first evaluation at or below the target, nothing interpolated; NaN for a miss."""
    reached = curves[(curves["id"] == run_id) & (curves["loss"] <= (-math.inf if target is None else target))]
    return float(reached["step"].min()) if len(reached) else math.nan


def _summaries(measure: Measure, runs: pd.DataFrame, items: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Value of each finished run by method and seed (None: a missed target, or not measured) and their mean."""
    done = finished(runs)
    if measure.kind == "items":
        scores = axis_values(items)
        own = [scores.get(run, math.nan) for run in zip(done["method"], done["seed"], strict=True)]
        done = done.assign(**{measure.column: own})
    summaries = {}
    for method, rows in done.groupby("method"):
        values = {
            str(int(seed)): float(value) if math.isfinite(value) else None
            for seed, value in zip(rows["seed"], rows[measure.column].astype(float), strict=True)
        }
        present = [value for value in values.values() if value is not None]
        # A mean over the runs that reached the target would reward missing it.
        whole = len(present) == len(values) > 0
        summaries[str(method)] = {"mean": sum(present) / len(present) if whole else None, "values": values}
    return summaries


def adjust(measures: list[dict[str, Any]]) -> None:
    """Adds `p_holm` to every pair, within the families that the top of this file names."""
    primary = [entry for measure in measures if measure["family"] == "primary" for entry in measure["pairs"]]
    families = [primary, *(measure["pairs"] for measure in measures if measure["family"] == "exploratory")]
    for family in families:
        for entry, adjusted in zip(family, holm([entry["p"] for entry in family]), strict=True):
            entry["p_holm"] = adjusted


def word(measure: Measure, entry: dict[str, Any], strict: bool) -> str:
    """The word for the first method of the pair: better, worse or no evidence.

    `strict` asks for an adjusted p beside an interval. It follows the planned seeds, not those that are left:
    losing a seed must not make it easier to win.
    """
    neutral = 1.0 if measure.kind in ("ratio", "count") else 0.0
    decided = entry["effect"] is not None if measure.kind == "count" else entry["beyond_chance"]
    if strict and measure.kind != "count":
        decided = decided and entry["p_holm"] is not None and entry["p_holm"] <= LEVEL
    if not decided or math.isclose(entry["effect"], neutral, abs_tol=1e-12):
        return "no evidence"
    better = (entry["effect"] < neutral) == (measure.better == "lower")
    winner = entry["pair"][0 if better else 1]
    if any(failure["method"] == winner and failure["seed"] not in entry["seeds"] for failure in entry["failed"]):
        return "no evidence"  # the seeds on which it failed would have to count against it
    return "better" if better else "worse"

"""What a pilot comes to: the method by its seeds, the checkpoint that would ship by its items, and what both cost.

Results count only as they were fixed: every seed of both sides, every item of every run, nothing from before the fix.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pandas as pd
from msgspec import Struct

from cegm.lab.compare.item_statistics import mcnemar
from cegm.lab.pilot import looks
from cegm.lab.pilot.decision import Decision, decide
from cegm.lab.pilot.fixing import Fix, PilotFolder
from cegm.lab.pilot.money import Money
from cegm.lab.pilot.pilot_config import BASE_MODEL, PilotConfig
from cegm.lab.strict import parquet_table
from cegm.lab.tasks.company import NAME
from cegm.lab.train.audit import read

HOUR = 3600.0
Scores = Mapping[str, float]
"""Score of each item, by its id."""


class Checkpoint(Struct):
    """One set of weights beside those it would replace, on the same items.

    Attributes:
        seed: Of its run, that with the lowest validation loss: no item of the pilot chose it.
        run: Its folder in the comparison.
        decision: By the differences of items.
        better_on: Items on which it scores higher.
        worse_on: Items on which it scores lower.
        p: McNemar's, two-sided; None where scores are not right or wrong.
        looks_enough_after: Items on which the two differ until looks at any time said "better"; None if they never did.
    """

    seed: int
    run: str
    decision: Decision
    better_on: int
    worse_on: int
    p: float | None
    looks_enough_after: int | None


class PilotVerdict(Struct):
    """`verdict.json` of a pilot.

    Attributes:
        fixed_at: Time of the fix.
        criteria_sha256: Hash of what was fixed.
        items: Questions per run.
        seeds: Those that were compared.
        method: The method that would be adopted.
        against: What it has to beat.
        decision: The word on the method, by its seeds.
        points: Effect on each seed.
        over_base: The same against the model as it is; None where that is what it has to beat.
        checkpoint: What would ship, beside what it would replace.
        means: Mean of every measure (subset) by arm.
        money: What effects are worth, computing included.
        training_seconds: Median of a run by arm.
        answering: Seconds and tokens an item takes to examine, by arm, everything that was measured on it included.
        pilot_cost: What the pilot's own computing cost.
    """

    fixed_at: str
    criteria_sha256: str
    items: int
    seeds: list[int]
    method: str
    against: str
    decision: Decision
    points: list[float]
    over_base: Decision | None
    checkpoint: Checkpoint
    means: dict[str, dict[str, float]]
    money: Money
    training_seconds: dict[str, float]
    answering: dict[str, dict[str, float | None]]
    pilot_cost: float

    @property
    def more_cost(self) -> float:
        """What as many seeds again would cost."""
        return self.pilot_cost


def judged(config: PilotConfig, before: Fix) -> PilotVerdict:
    """Judges what lies in the folder of a pilot; ValueError, which names it, for what is missing or older than the fix."""
    folder = PilotFolder(Path(config.output_dir))
    results = parquet_table(folder.comparison / "results.parquet")
    items = parquet_table(folder.comparison / "items.parquet")
    base = parquet_table(folder.base / "items.parquet")
    runs = _runs(config, before, folder, results)
    subset = items[items["subset"] == config.kpi]
    by_run = {run: _scores(subset[subset["id"] == row["id"]], before, run) for run, row in runs.items()}
    as_it_is = _scores(base[base["subset"] == config.kpi], before, (BASE_MODEL, 0))

    def scores(arm: str, seed: int) -> Scores:
        return as_it_is if arm == BASE_MODEL else by_run[arm, seed]

    def points(against: str) -> list[float]:
        return [_mean(scores(config.method, seed)) - _mean(scores(against, seed)) for seed in config.seed_list]

    seconds = {
        arm: median(float(runs[arm, seed]["seconds"]) for seed in config.seed_list) for arm in config.method_list
    }
    price = config.price_per_hour / HOUR
    money = config.money(price * (seconds[config.method] - seconds.get(config.against, 0.0)))
    all_runs = price * sum(float(row["seconds"]) + _examined(row)["seconds"] for row in runs.values())
    smallest, effects = config.smallest_worthwhile, points(config.against)
    shipped = min(config.seed_list, key=lambda seed: float(runs[config.method, seed]["bits_per_byte"]))
    return PilotVerdict(
        fixed_at=before.time,
        criteria_sha256=before.criteria_sha256,
        items=len(before.items),
        seeds=config.seed_list,
        method=config.method,
        against=config.against,
        decision=decide(effects, money, smallest),
        points=effects,
        over_base=None if config.against == BASE_MODEL else decide(points(BASE_MODEL), money, smallest),
        checkpoint=_checkpoint(
            shipped,
            str(runs[config.method, shipped]["id"]),
            scores(config.method, shipped),
            scores(config.against, shipped),
            list(before.items),
            money,
            smallest,
        ),
        means={**_means(base.assign(method=BASE_MODEL)), **_means(items)},
        money=money,
        training_seconds=seconds,
        answering={
            arm: _per_item([_examined(runs[arm, seed]) for seed in config.seed_list], len(before.items))
            for arm in config.method_list
        },
        pilot_cost=all_runs,
    )


def _runs(
    config: PilotConfig, before: Fix, folder: PilotFolder, results: pd.DataFrame
) -> dict[tuple[str, int], dict[Any, Any]]:
    """The finished run of each method and seed; ValueError names the first that is missing, failed, or older than the fix."""
    found = {(row["method"], int(row["seed"])): row for row in results.to_dict("records") if row["role"] == "main"}
    for seed in config.seed_list:
        for method in config.method_list:
            row = found.get((method, seed))
            if row is None or row["status"] != "finished":
                why = "has no result" if row is None else f"failed ({row['error']})"
                raise ValueError(f"seed {seed} of {method} {why}; no seed may be left out: run the pilot again")
            (log,) = [*folder.comparison.glob(f"runs/*-{row['id']}/audit.jsonl"), None][:1]
            if log is None:
                raise ValueError(f"seed {seed} of {method} has no audit.jsonl; run the pilot again")
            started = read(log)[0][0]["time"]
            if datetime.fromisoformat(started) < before.moment:
                raise ValueError(
                    f"seed {seed} of {method} ran at {started}, before the fix at {before.time}; delete {log.parent} to run it again"
                )
    return found


def _scores(items: pd.DataFrame, before: Fix, run: tuple[str, int]) -> Scores:
    scores = dict(zip(items["item"], items["score"].astype(float), strict=True))
    missing = [name for name in before.items if name not in scores]
    if missing:
        raise ValueError(f"item {missing[0]} was not asked of {run[0]} seed {run[1]}; no item may be left out")
    return scores


def _mean(scores: Scores) -> float:
    return fmean(scores.values())


def _checkpoint(
    seed: int, run: str, new: Scores, old: Scores, items: Sequence[str], money: Money, smallest: float
) -> Checkpoint:
    differences = [new[name] - old[name] for name in items]
    apart = [difference > 0 for difference in differences if difference]
    binary = set(new.values()) | set(old.values()) <= {0.0, 1.0}
    ours, theirs = (np.array([side[name] for name in items]) for side in (new, old))
    return Checkpoint(
        seed=seed,
        run=run,
        decision=decide(differences, money, smallest),
        better_on=sum(apart),
        worse_on=len(apart) - sum(apart),
        p=mcnemar(ours, theirs)[2] if binary else None,
        looks_enough_after=looks.first_enough(apart),
    )


def _means(items: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean of every subset by method."""
    found: dict[str, dict[str, float]] = {}
    for row in items.groupby(["method", "subset"])["score"].mean().reset_index().to_dict("records"):
        found.setdefault(row["method"], {})[row["subset"]] = float(row["score"])
    return found


def _examined(row: dict[Any, Any]) -> dict[str, Any]:
    """Seconds and tokens of a run's examination."""
    state = row["axes"]
    return (json.loads(state) if isinstance(state, str) else state)[NAME]


def _per_item(states: Sequence[dict[str, Any]], items: int) -> dict[str, float | None]:
    tokens = [state["tokens"] for state in states]
    return {
        "seconds": median(state["seconds"] for state in states) / items,
        "tokens": None if None in tokens else median(tokens) / items,
    }

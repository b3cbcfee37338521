"""Scored items of all runs, axis by axis: paired effects, values of runs, and how each level came out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from cegm.compare import item_statistics
from cegm.compare.measures import primary_subsets
from cegm.compare.statistics import Difference


def primary_items(items: pd.DataFrame) -> pd.DataFrame:
    """Items of the main runs that count in the primary measure of their axis; `level` then names subset and level."""
    if items.empty:
        return items
    main = items[items["role"] == "main"]
    counted = [_counted(str(axis), own) for axis, own in main.groupby("axis")]
    return pd.concat(counted) if counted else main


def _counted(axis: str, items: pd.DataFrame) -> pd.DataFrame:
    subsets = primary_subsets(axis)
    own = items[items["subset"].isin(subsets)] if subsets else items
    return own.assign(level=own["subset"] + "/" + own["level"].astype(str))


def item_effect(items: pd.DataFrame, pair: tuple[str, str], seeds: Sequence[int]) -> Difference | None:
    """Paired effect of one axis: items joined one to one within seed and level; None unless every seed has them on both sides."""
    own = items[items["seed"].isin(seeds)]
    first, second = (own[own["method"] == method] for method in pair)
    joined = first.merge(second, on=["seed", "level", "item"], suffixes=("", "_other"), validate="one_to_one")
    if joined.empty or joined["seed"].nunique() < len(seeds):
        return None
    joined["difference"] = joined["score"].astype(float) - joined["score_other"].astype(float)
    return item_statistics.item_difference(joined)


def axis_value(items: pd.DataFrame, method: str, seed: int) -> float:
    """Score of one run on one axis: the mean over levels; NaN without items."""
    if items.empty:
        return math.nan
    own = items[(items["method"] == method) & (items["seed"] == seed)]
    return float(own.groupby("level")["score"].mean().mean())


def axis_levels(items: pd.DataFrame, methods: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """How every subset and level of every axis came out in the main runs; exploratory, without tests.

    Returns:
        By axis, in order: `subset`, `level`, `chance` (None where guessing has no meaning), `items` of a run, `methods`
        with the mean, lowest and highest score over seeds, and `differences` (mean over seeds of the first minus the
        second of each pair).
    """
    if items.empty:
        return {}
    main = items[items["role"] == "main"]
    found: dict[str, list[dict[str, Any]]] = {}
    for (axis, subset, level), own in main.groupby(["axis", "subset", "level"]):
        found.setdefault(str(axis), []).append(
            {"subset": str(subset), "level": float(str(level)), **_level(own, methods)}
        )
    return found


def _level(items: pd.DataFrame, methods: Sequence[str]) -> dict[str, Any]:
    scores = items.groupby(["method", "seed"])["score"].mean()
    chance = float(items["chance"].mean())
    present = [method for method in methods if method in scores.index]
    differences = []
    for first, second in itertools.combinations(present, 2):
        paired = (scores[first] - scores[second]).dropna()
        if len(paired):
            differences.append({"pair": [first, second], "mean": float(paired.mean())})
    return {
        "chance": chance if math.isfinite(chance) else None,
        "items": int(items.groupby(["method", "seed"]).size().max()),
        "methods": {
            m: {"mean": float(scores[m].mean()), "low": float(scores[m].min()), "high": float(scores[m].max())}
            for m in present
        },
        "differences": differences,
    }

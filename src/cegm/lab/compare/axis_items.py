"""Scored items of all runs, axis by axis: paired effects, values of runs, and how each level came out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cegm.lab.compare import item_statistics
from cegm.lab.compare.measures import primary_subsets
from cegm.lab.compare.pairing import Pair
from cegm.lab.compare.statistics import Difference

CELL = ["subset", "level"]
"""What names a level of an axis."""


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


def joined(items: pd.DataFrame, pair: Pair, seeds: Sequence[int]) -> pd.DataFrame:
    """Items of one axis that both methods have, joined one to one within seed, subset and level.

    Returns:
        The columns of the first method, `score_other` and `difference` (first minus second).
    """
    own = items[items["seed"].isin(seeds)]
    keys = ["seed", "subset", "level", "item"]
    first, second = (own[own["method"] == method] for method in pair)
    both = first.merge(second[[*keys, "score"]], on=keys, suffixes=("", "_other"), validate="one_to_one")
    return both.assign(difference=both["score"].astype(float) - both["score_other"].astype(float))


def item_effect(both: pd.DataFrame, seeds: Sequence[int]) -> Difference | None:
    """Paired effect of one axis over its `joined` items; None unless every seed has some."""
    if both.empty or both["seed"].nunique() < len(seeds):
        return None
    return item_statistics.item_difference(both)


def item_tests(both: pd.DataFrame) -> list[dict[str, Any]]:
    """McNemar's test of the two checkpoints of each seed over their `joined` items; none where scores are not right or wrong.

    Returns:
        By seed: items that only the first (`first_only`) or only the second (`second_only`) got right, and `p`.
    """
    if both.empty or not both[["score", "score_other"]].isin([0, 1]).all(axis=None):
        return []
    found = []
    for seed, own in both.groupby("seed"):
        test = item_statistics.mcnemar(own["score"].tolist(), own["score_other"].tolist())
        found.append(
            {"seed": int(str(seed)), "first_only": test.only_first, "second_only": test.only_second, "p": test.p}
        )
    return found


def axis_values(items: pd.DataFrame) -> dict[tuple[str, int], float]:
    """Score of each run on one axis, by method and seed: the mean over levels."""
    if items.empty:
        return {}
    levels = items.groupby(["method", "seed", "level"])["score"].mean()
    values = levels.groupby(["method", "seed"]).mean().reset_index()
    return {(row["method"], row["seed"]): row["score"] for row in values.to_dict("records")}


def axis_levels(
    items: pd.DataFrame, methods: Sequence[str], paired: Mapping[Pair, Sequence[int]]
) -> dict[str, list[dict[str, Any]]]:
    """How every subset and level of every axis came out in the main runs; exploratory, without tests.

    Args:
        items: All items.
        methods: All methods, in order.
        paired: Pairs, and the seeds on which each may be compared.

    Returns:
        By axis, in order: `subset`, `level`, `chance` (None where guessing has no meaning), `items` of a run, `methods`
        with the mean, lowest and highest score over seeds, and `differences` of each pair with the mean over seeds of the
        first minus the second, the difference of each seed, and the ends of its 95 % interval (None where the seeds are too
        few for one), over seeds and clusters as in `item_statistics` and not adjusted for the number of levels.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    if items.empty:
        return found
    for axis, own in items[items["role"] == "main"].groupby("axis"):
        both = {pair: dict(list(joined(own, pair, seeds).groupby(CELL))) for pair, seeds in paired.items()}
        found[str(axis)] = [
            {
                "subset": str(subset),
                "level": float(str(level)),
                **_level(scored, methods),
                "differences": [
                    _difference(pair, cells[subset, level]) for pair, cells in both.items() if (subset, level) in cells
                ],
            }
            for (subset, level), scored in own.groupby(CELL)
        ]
    return found


def _level(items: pd.DataFrame, methods: Sequence[str]) -> dict[str, Any]:
    runs = items.groupby(["method", "seed"])["score"]
    scores, chance = runs.mean(), float(items["chance"].mean())
    return {
        "chance": chance if math.isfinite(chance) else None,
        "items": int(runs.size().max()),
        "methods": {
            m: {"mean": float(own.mean()), "low": float(own.min()), "high": float(own.max())}
            for m, own in ((m, scores[m]) for m in methods if m in scores.index)
        },
    }


def _difference(pair: Pair, both: pd.DataFrame) -> dict[str, Any]:
    effect = item_statistics.item_difference(both)
    ends = {"low": effect.low, "high": effect.high}
    return {"pair": list(pair), "mean": effect.estimate, **ends, "points": list(effect.points)}

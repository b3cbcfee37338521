"""Scored items of all runs, axis by axis: joined one to one, paired effects over seeds and of checkpoints, values and levels.

The two-level bootstrap of items is the only resampling written here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats import contingency_tables

from cegm.lab.compare.measures import primary_subsets
from cegm.lab.compare.pairing import Pair
from cegm.lab.compare.seed_statistics import (
    CLAIM_SEEDS,
    CONFIDENCE,
    POWER,
    Array,
    Difference,
    expanded_tail,
    paired_difference,
    sign_flip_p,
    smallest_detectable_difference,
    summed_up,
)

ITEM_RESAMPLES = 2000

EXACT_DISCORDANT = 25
"""From so many items on that only one side gets right, McNemar's test is by chi-square instead of exact."""


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
    return item_difference(both)


def item_tests(both: pd.DataFrame) -> list[dict[str, Any]]:
    """McNemar's test of the two checkpoints of each seed over their `joined` items; none where scores are not right or wrong.

    Returns:
        By seed: items that only the first (`first_only`) or only the second (`second_only`) got right, and `p`.
    """
    if both.empty or not both[["score", "score_other"]].isin([0, 1]).all(axis=None):
        return []
    found = []
    for seed, own in both.groupby("seed"):
        first, second = (own[side].to_numpy(dtype=np.float64) for side in ("score", "score_other"))
        only_first, only_second, p = mcnemar(first, second)
        found.append({"seed": int(str(seed)), "first_only": only_first, "second_only": only_second, "p": p})
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

    Returns:
        By axis, in order: `subset`, `level`, `chance` (None where guessing has no meaning), `items` of a run, `methods`
        with the mean, lowest and highest score over seeds, and `differences` of each pair with the mean over seeds of the
        first minus the second, the difference of each seed, and the ends of its 95 % interval (None where the seeds are too
        few for one), over seeds and clusters as in `item_difference` and not adjusted for the number of levels.
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
    effect = item_difference(both)
    ends = {"low": effect.low, "high": effect.high}
    return {"pair": list(pair), "mean": effect.estimate, **ends, "points": list(effect.points)}


def mcnemar(first: Array, second: Array) -> tuple[int, int, float]:
    """McNemar's test of two checkpoints that answered the same items (McNemar 1947; Edwards' correction of 1948).

    It says whether these two checkpoints differ on items like these. It says nothing of the methods that made them:
    that is a question over seeds, for `item_difference`. Items of one cluster count as independent, which they are not.

    Args:
        first: (items,), 1 for right and 0 for wrong.
        second: (items,), of the same items.

    Returns:
        How many only the first and only the second got right, and the two-sided p of "both are right equally often".
    """
    only_first, only_second = int(np.sum(first > second)), int(np.sum(first < second))
    exact = only_first + only_second < EXACT_DISCORDANT
    table = [[0, only_first], [only_second, 0]]  # on what both get right or wrong it does not depend
    return only_first, only_second, float(contingency_tables.mcnemar(table, exact=exact, correction=True).pvalue)


def item_difference(items: pd.DataFrame) -> Difference:
    """Paired difference of an item score: mean over levels, then over seeds, with item uncertainty in the interval.

    Items come in clusters that stand or fall together (a story, a document). Where every seed has clusters of its own,
    the spread between seeds already contains them and the interval is that of the per-seed differences
    (`seed_statistics.mean_interval`). Where all seeds answer the same clusters, what the clusters have in common does not
    show between seeds (t over seeds then covers .54 to .90 instead of .95), so both are accounted for:

    - below `CLAIM_SEEDS` seeds by the two-way random-effects variance of the seed x cluster table,
      `(MS_seed + MS_cluster - MS_rest) / (seeds * clusters)`, with Satterthwaite's degrees of freedom (simulated
      coverage .91 to .98);
    - from there on by the Multi-Bootstrap (arXiv 2106.16163), which resamples seeds and, for all of them together,
      clusters, with expanded percentiles (simulated coverage .94 to 1.0: it errs on the wide side).

    Args:
        items: One row per paired item with columns `seed`, `level`, `cluster` and `difference` (first minus second).

    Returns:
        The effect in the unit of `difference`, as `seed_statistics.summed_up` shows it. The p is the sign-flip over the
        per-seed differences. Where all seeds answer the same clusters, that p alone would take a lead on these very items
        for a lead on all such items (simulated false positives at 8 and 12 seeds, with differences between clusters of
        standard deviation .2: .28 and .40 with 20 clusters of 8 items, .42 and .53 with 8 of 16), so the p is the larger
        one of it and that of the two-way random effects (.04 to .06).

    Raises:
        ValueError: If there are no rows.
    """
    if items.empty:
        raise ValueError("no paired items to compare: both methods need records of the same items")
    per_seed = items.groupby(["seed", "level"])["difference"].mean().groupby("seed").mean().to_numpy(dtype=np.float64)
    seeds, estimate = len(per_seed), float(per_seed.mean())
    clusters = items.groupby("seed")["cluster"].agg(frozenset)
    if seeds < 2 or clusters.nunique() > 1 or len(clusters.iloc[0]) < 2:
        return paired_difference(per_seed.tolist(), [0.0] * seeds)
    sums, counts = _cluster_tables(items)
    error, freedom = _two_way(sums, counts)
    if seeds < CLAIM_SEEDS:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * error
        low, high = estimate - half, estimate + half
        method = "t over seeds and shared item clusters (two-way random effects)"
    else:
        draws, tail = _multi_bootstrap(sums, counts), expanded_tail(seeds)
        low, high = (float(bound) for bound in np.quantile(draws, [tail, 1 - tail]))
        method = "multi-bootstrap over seeds and item clusters, expanded percentiles"
    # The spread over seeds that would give the same error: what can be detected follows what p is made of,
    # and the interval, which has to exclude zero, too, and errs on the wide side.
    detectable = max(
        smallest_detectable_difference(error * math.sqrt(seeds), seeds),
        (high - low) / 2 + float(stats.t.ppf(POWER, freedom)) * error,
    )
    p = max(sign_flip_p(per_seed), 2 * float(stats.t.sf(abs(estimate) / error, freedom)) if error else 0.0)
    return summed_up(per_seed, (low, high), p, detectable, method)


def _cluster_tables(items: pd.DataFrame) -> tuple[Array, Array]:
    """Sums and counts of differences, each (seeds, clusters, levels)."""
    seed, seeds = pd.factorize(items["seed"], sort=True)
    cluster, clusters = pd.factorize(items["cluster"], sort=True)
    level, levels = pd.factorize(items["level"], sort=True)
    sums, counts = np.zeros((2, len(seeds), len(clusters), len(levels)))
    np.add.at(sums, (seed, cluster, level), items["difference"].to_numpy(dtype=np.float64))
    np.add.at(counts, (seed, cluster, level), 1.0)
    return sums, counts


def _two_way(sums: Array, counts: Array) -> tuple[float, float]:
    """Standard error of the mean of a seed x cluster table in which both are random, and its degrees of freedom.

    By expected mean squares, with Satterthwaite's (1946) degrees of freedom.
    """
    seeds, clusters, _ = sums.shape
    # What each cluster adds to its seed's score, so that the mean over clusters is exactly that score.
    table = (clusters * sums / counts.sum(axis=1, keepdims=True)).mean(axis=2)  # (seeds, clusters)
    mean, by_seed, by_cluster = table.mean(), table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_cluster[None, :] + mean
    freedom = np.array([seeds - 1, clusters - 1, (seeds - 1) * (clusters - 1)])
    # Mean squares over the size of the table: what each source alone would make of the variance of the mean.
    seed_part = clusters * np.square(by_seed - mean).sum() / freedom[0] / table.size
    cluster_part = seeds * np.square(by_cluster - mean).sum() / freedom[1] / table.size
    rest_part = np.square(rest).sum() / freedom[2] / table.size
    variance = max(seed_part + cluster_part - rest_part, seed_part, cluster_part)
    if variance == 0.0:
        return 0.0, float(seeds - 1)
    effective = variance**2 / (np.square([seed_part, cluster_part, rest_part]) / freedom).sum()
    return math.sqrt(variance), float(max(effective, min(seeds, clusters) - 1))


def _multi_bootstrap(sums: Array, counts: Array) -> Array:
    """Draws (`ITEM_RESAMPLES`,) of the mean over seeds of the mean over levels; clusters are shared by the seeds."""
    seeds, clusters, levels = sums.shape
    weights, chosen = _resamples(seeds, clusters, ITEM_RESAMPLES)
    drawn, gained = (  # each (resamples, seeds, levels)
        (weights @ table.swapaxes(0, 1).reshape(clusters, -1)).reshape(-1, seeds, levels) for table in (counts, sums)
    )
    with np.errstate(invalid="ignore"):  # a level without items in a draw is left out of that draw
        means = np.where(drawn > 0, gained / drawn, np.nan)
    return np.asarray(np.take_along_axis(np.nanmean(means, axis=2), chosen, axis=1).mean(axis=1))


@lru_cache(maxsize=8)  # levels and pairs of one shape share their draws
def _resamples(seeds: int, clusters: int, count: int) -> tuple[Array, npt.NDArray[np.int64]]:
    """How often each cluster is drawn, (count, clusters), and which seeds are, (count, seeds)."""
    rng = np.random.default_rng(0)
    weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=count).astype(np.float64)
    return weights, rng.integers(seeds, size=(count, seeds))

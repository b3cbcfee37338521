"""Paired statistics over items: of two methods over seeds, and of one checkpoint against another.

Items of both sides are already joined one to one (`axis_items.py` does that). The two-level bootstrap of items is the only
resampling written here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats import contingency_tables

from cegm.lab.compare import statistics
from cegm.lab.compare.statistics import Array, Difference

ITEM_RESAMPLES = 2000

EXACT_DISCORDANT = 25
"""From so many items on that only one side gets right, McNemar's test is by chi-square instead of exact."""


@dataclass(frozen=True)
class McNemar:
    """One checkpoint against another on the same items.

    Attributes:
        only_first: Items that only the first gets right.
        only_second: Items that only the second gets right.
        items: All items.
        p: Two-sided p of "both are right equally often".
        exact: Whether it is the exact binomial p, else chi-square with continuity correction.
    """

    only_first: int
    only_second: int
    items: int
    p: float
    exact: bool


def mcnemar(first: Sequence[float], second: Sequence[float]) -> McNemar:
    """McNemar's test of two checkpoints that answered the same items (McNemar 1947; Edwards' correction of 1948).

    It says whether these two checkpoints differ on items like these. It says nothing of the methods that made them:
    that is a question over seeds, for `item_difference`. Items of one cluster count as independent, which they are not.

    Args:
        first: 0 or 1 for each item.
        second: 0 or 1 for each item, in the same order.

    Returns:
        Discordant counts and p, exact below `EXACT_DISCORDANT` discordant items.

    Raises:
        ValueError: If the two differ in length, are empty or hold anything but 0 and 1.
    """
    own, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if own.shape != other.shape or own.size == 0:
        raise ValueError(f"paired items must come in equal, non-zero numbers, got {own.size} and {other.size}")
    if not np.isin([own, other], (0.0, 1.0)).all():
        raise ValueError("McNemar's test takes right and wrong (1 and 0) only; use item_difference for other scores")
    table = np.array([[np.sum((own == a) & (other == b)) for b in (1.0, 0.0)] for a in (1.0, 0.0)])
    only_first, only_second = int(table[0, 1]), int(table[1, 0])
    exact = only_first + only_second < EXACT_DISCORDANT
    p = contingency_tables.mcnemar(table, exact=exact, correction=True).pvalue
    return McNemar(only_first, only_second, own.size, float(p), exact)


def item_difference(items: pd.DataFrame) -> Difference:
    """Paired difference of an item score: mean over levels, then over seeds, with item uncertainty in the interval.

    Items come in clusters that stand or fall together (a story, a document). Where every seed has clusters of its own,
    the spread between seeds already contains them and the interval is that of the per-seed differences
    (`statistics.mean_interval`). Where all seeds answer the same clusters, what the clusters have in common does not
    show between seeds (t over seeds then covers .54 to .90 instead of .95), so both are accounted for:

    - below `CLAIM_SEEDS` seeds by the two-way random-effects variance of the seed x cluster table,
      `(MS_seed + MS_cluster - MS_rest) / (seeds * clusters)`, with Satterthwaite's degrees of freedom (simulated
      coverage .91 to .98);
    - from there on by the Multi-Bootstrap (arXiv 2106.16163), which resamples seeds and, for all of them together,
      clusters, with expanded percentiles (simulated coverage .94 to 1.0: it errs on the wide side).

    Args:
        items: One row per paired item with columns `seed`, `level`, `cluster` and `difference` (first minus second).

    Returns:
        The effect in the unit of `difference`, as `statistics.summed_up` shows it. The p is the sign-flip over the
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
        return statistics.paired_difference(per_seed.tolist(), [0.0] * seeds)
    sums, counts = _cluster_tables(items)
    error, freedom = _two_way(sums, counts)
    if seeds < statistics.CLAIM_SEEDS:
        half = float(stats.t.ppf(0.5 + statistics.CONFIDENCE / 2, freedom)) * error
        low, high = estimate - half, estimate + half
        method = "t over seeds and shared item clusters (two-way random effects)"
    else:
        draws, tail = _multi_bootstrap(sums, counts), statistics.expanded_tail(seeds)
        low, high = (float(bound) for bound in np.quantile(draws, [tail, 1 - tail]))
        method = "multi-bootstrap over seeds and item clusters, expanded percentiles"
    # The spread over seeds that would give the same error: what can be detected follows what p is made of,
    # and the interval, which has to exclude zero, too, and errs on the wide side.
    detectable = max(
        statistics.smallest_detectable_difference(error * math.sqrt(seeds), seeds),
        (high - low) / 2 + float(stats.t.ppf(statistics.POWER, freedom)) * error,
    )
    p = max(statistics.sign_flip_p(per_seed), 2 * float(stats.t.sf(abs(estimate) / error, freedom)) if error else 0.0)
    return statistics.summed_up(per_seed, (low, high), p, detectable, method)


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

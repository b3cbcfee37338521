"""Paired statistics over seeds: differences, intervals, sign-flip p-values and what a design can detect at all.

Everything here takes numbers that are already paired (seed by seed, or item by item within a seed) and knows nothing
of methods, folders or measures; `verdict.py` does the pairing. What scipy and statsmodels offer is used; the two-level
bootstrap of items is the only resampling written here.

Which interval, and why (coverage of nominal 95 % intervals, 3000 simulated experiments each, normal / Student-t(3)
differences):

======  ===================  ====================  ==============================
seeds   t                    percentile bootstrap  expanded percentile bootstrap
======  ===================  ====================  ==============================
3       .956 / .965          .759 / .746           .759 / .746
5       .961 / .961          .844 / .834           .924 / .917
8       .953 / .961          .893 / .881           .946 / .941
20      .955 / .960          .933 / .922           .954 / .948
======  ===================  ====================  ==============================

A bootstrap cannot leave the range of the seeds it resamples, and the mean lies outside the range of 3 seeds one time
in four. Below `CLAIM_SEEDS` seeds the interval is therefore Student's t over seeds; from there on it is the bootstrap
over seeds with expanded percentiles (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", arXiv
1411.5279), which widens the percentiles by exactly what resampling n values understates. Strongly skewed differences
(lognormal) are under-covered by every method at these sizes (.83 for t and .62 for the bootstrap at 3 seeds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

CLAIM_SEEDS = 8
"""Seeds from which on a comparison may be called a claim (a two-sided sign-flip test over 8 seeds reaches .0078)."""

CONFIDENCE = 0.95
POWER = 0.80
EXACT_SEEDS = 13
"""Up to here all 2**n sign flips are enumerated; beyond, `RESAMPLES` random ones."""

RESAMPLES = 9999
ITEM_RESAMPLES = 2000

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A paired effect with what is known about its size.

    Attributes:
        estimate: The effect: a mean difference, or a ratio (see `paired_ratio`).
        low: Lower end of the 95 % interval; None with fewer than two seeds.
        high: Upper end of the 95 % interval; None with fewer than two seeds.
        p: Two-sided paired sign-flip p-value over seeds; None with fewer than two seeds.
        seeds: Number of paired seeds.
        smallest_detectable: Smallest true effect found with 80 % power at the two-sided 5 % level; None with fewer
            than two seeds.
        interval_method: How the interval was made, in words.
    """

    estimate: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    smallest_detectable: float | None
    interval_method: str


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of `first - second` over paired seeds.

    Args:
        first: One finite value per seed.
        second: One finite value per seed, in the same order.

    Returns:
        The mean difference, its 95 % interval (t below `CLAIM_SEEDS` seeds, else expanded percentile bootstrap), the
        sign-flip p and the smallest detectable difference.

    Raises:
        ValueError: If the two differ in length, are empty or are not finite.
    """
    differences = _paired(first, second)
    count = len(differences)
    if count < 2:
        return Difference(float(differences.mean()), None, None, None, count, None, "none: one seed has no spread")
    low, high, method = mean_interval(differences)
    spread = float(differences.std(ddof=1))
    return Difference(
        estimate=float(differences.mean()),
        low=low,
        high=high,
        p=sign_flip_p(differences),
        seeds=count,
        smallest_detectable=smallest_detectable_difference(spread, count),
        interval_method=method,
    )


def paired_ratio(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Geometric mean of `first / second` over paired seeds, for quantities that differ by a factor (times, memory).

    Args:
        first: One positive value per seed.
        second: One positive value per seed, in the same order.

    Returns:
        `paired_difference` of the logarithms, carried back by `exp`; `smallest_detectable` is a factor above one.

    Raises:
        ValueError: If a value is not positive, or as in `paired_difference`.
    """
    smallest = min([*first, *second], default=1.0)
    if smallest <= 0:
        raise ValueError(f"a ratio needs positive values, got {smallest}: check the run that reported it")
    logs = paired_difference(np.log(first).tolist(), np.log(second).tolist())
    return Difference(
        estimate=math.exp(logs.estimate),
        low=None if logs.low is None else math.exp(logs.low),
        high=None if logs.high is None else math.exp(logs.high),
        p=logs.p,
        seeds=logs.seeds,
        smallest_detectable=None if logs.smallest_detectable is None else math.exp(logs.smallest_detectable),
        interval_method=f"{logs.interval_method}, of log ratios",
    )


def mean_interval(values: Array) -> tuple[float, float, str]:
    """95 % interval of the mean of at least two values, and the name of its method (see the top of this file)."""
    count = len(values)
    error = float(stats.sem(values))
    if error == 0.0:
        return float(values[0]), float(values[0]), "no spread between seeds"
    if count < CLAIM_SEEDS:
        half = _t_quantile(count) * error
        return float(values.mean()) - half, float(values.mean()) + half, "t over seeds"
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - 2 * _expanded_tail(count),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high), "bootstrap over seeds, expanded percentiles"


def sign_flip_p(differences: Array) -> float:
    """Two-sided p of the mean against flipping the sign of each paired difference.

    Exact up to `EXACT_SEEDS` values. The smallest value that n seeds can give is `2 / 2**n`: .25 for 3, .0625 for 5,
    .0078 for 8.
    """
    count = len(differences)
    return float(
        stats.permutation_test(
            (differences,),
            lambda sample, axis: np.mean(sample, axis=axis),
            permutation_type="samples",  # with a single sample scipy flips signs
            vectorized=True,
            n_resamples=2**count if count <= EXACT_SEEDS else RESAMPLES,
            rng=np.random.default_rng(0),
        ).pvalue
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment within one family; a missing p stays missing and does not count."""
    present = [p for p in p_values if p is not None]
    if not present:
        return list(p_values)
    adjusted = iter(multipletests(present, method="holm")[1].tolist())
    return [None if p is None else float(next(adjusted)) for p in p_values]


def smallest_detectable_difference(spread: float, seeds: int) -> float:
    """Smallest true mean difference that this many seeds find with 80 % power at the two-sided 5 % level.

    `d(n) * spread`, where `d(n)` solves `P(|T| > t(.975, n-1)) = .80` for a noncentral t variable `T` with n-1 degrees
    of freedom and noncentrality `d * sqrt(n)` (the power of the paired t-test): d(3) = 3.26, d(5) = 1.68, d(8) = 1.16,
    d(20) = .66.

    Args:
        spread: Standard deviation of the paired differences over seeds, in the unit of the measure.
        seeds: Number of paired seeds, at least 2.

    Returns:
        The difference, in the unit of `spread`.
    """
    effect = TTestPower().solve_power(effect_size=None, nobs=seeds, alpha=1 - CONFIDENCE, power=POWER)
    return float(np.squeeze(effect)) * spread


def item_difference(items: pd.DataFrame) -> Difference:
    """Paired difference of an item score: mean over levels, then over seeds, with item uncertainty in the interval.

    Items come in clusters that stand or fall together (a story, a document). Where every seed has clusters of its own,
    the spread between seeds already contains them and the interval is that of the per-seed differences
    (`mean_interval`). Where all seeds answer the same clusters, what the clusters have in common does not show between
    seeds (t over seeds then covers .54 to .90 instead of .95), so both are accounted for:

    - below `CLAIM_SEEDS` seeds by the two-way random-effects variance of the seed x cluster table,
      `(MS_seed + MS_cluster - MS_rest) / (seeds * clusters)`, with Satterthwaite's degrees of freedom (simulated
      coverage .91 to .98);
    - from there on by the Multi-Bootstrap (arXiv 2106.16163), which resamples seeds and, for all of them together,
      clusters, with expanded percentiles (simulated coverage .94 to 1.0: it errs on the wide side).

    Args:
        items: One row per paired item with columns `seed`, `level`, `cluster` and `difference` (first minus second).

    Returns:
        The effect in the unit of `difference`. The p is the sign-flip over the per-seed differences.

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
    if seeds < CLAIM_SEEDS:
        low, high = _two_way_interval(sums, counts)
        method = "t over seeds and shared item clusters (two-way random effects)"
    else:
        draws, tail = _multi_bootstrap(sums, counts), _expanded_tail(seeds)
        low, high = (float(bound) for bound in np.quantile(draws, [tail, 1 - tail]))
        method = "multi-bootstrap over seeds and item clusters, expanded percentiles"
    # The half-width carries the item uncertainty into the spread from which the detectable difference follows.
    spread = (high - low) / 2 / _t_quantile(seeds) * math.sqrt(seeds)
    detectable = smallest_detectable_difference(spread, seeds)
    return Difference(estimate, low, high, sign_flip_p(per_seed), seeds, detectable, method)


def time_to_target(times: Sequence[float], losses: Sequence[float], target: float) -> float | None:
    """First evaluation at or below the target, or None when the run misses it.

    Args:
        times: Steps, tokens or seconds of the evaluations, rising.
        losses: Validation loss at each of them.
        target: Loss to reach.

    Returns:
        The time of that evaluation. Nothing is interpolated: the true crossing lies between it and the evaluation
        before.
    """
    return next((time for time, loss in zip(times, losses, strict=True) if loss <= target), None)


def restricted_mean_difference(
    first: Sequence[float | None], second: Sequence[float | None], horizon: float
) -> Difference:
    """Paired difference of restricted mean times to a target: a miss counts as the horizon, never as absent.

    Every run is followed to the horizon, so a run is either seen to reach the target or censored exactly there. In
    that case the area under the Kaplan-Meier curve up to the horizon equals the mean of `min(time, horizon)`, and the
    paired difference needs no more than that.

    Args:
        first: Time to target per seed, None for a miss.
        second: Time to target per seed, None for a miss, in the same order.
        horizon: End of observation, in the same unit, common to both.

    Returns:
        Mean of `min(first, horizon) - min(second, horizon)`. Misses make it a cautious estimate: true differences may
        be larger.
    """
    return paired_difference(_restricted(first, horizon), _restricted(second, horizon))


def _restricted(times: Sequence[float | None], horizon: float) -> list[float]:
    return [horizon if time is None else min(time, horizon) for time in times]


def _paired(first: Sequence[float], second: Sequence[float]) -> Array:
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(f"paired values must come in equal, non-zero numbers, got {len(first)} and {len(second)}")
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"paired values must be finite, got differences {differences.tolist()}: drop failed runs")
    return differences


def _t_quantile(count: int) -> float:
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))


def _expanded_tail(count: int) -> float:
    """Tail per side whose bootstrap percentile reaches as far as the t interval does (Hesterberg 2015)."""
    return float(stats.norm.cdf(-math.sqrt(count / (count - 1)) * _t_quantile(count)))


def _cluster_tables(items: pd.DataFrame) -> tuple[Array, Array]:
    """Sums and counts of differences, each (seeds, clusters, levels)."""
    seed, seeds = pd.factorize(items["seed"], sort=True)
    cluster, clusters = pd.factorize(items["cluster"], sort=True)
    level, levels = pd.factorize(items["level"], sort=True)
    sums, counts = np.zeros((2, len(seeds), len(clusters), len(levels)))
    np.add.at(sums, (seed, cluster, level), items["difference"].to_numpy(dtype=np.float64))
    np.add.at(counts, (seed, cluster, level), 1.0)
    return sums, counts


def _two_way_interval(sums: Array, counts: Array) -> tuple[float, float]:
    """95 % interval of the mean of a seed x cluster table in which both are random (Satterthwaite 1946)."""
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
        return float(mean), float(mean)
    effective = variance**2 / (np.square([seed_part, cluster_part, rest_part]) / freedom).sum()
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, max(effective, seeds - 1)) * math.sqrt(variance))
    return float(mean) - half, float(mean) + half


def _multi_bootstrap(sums: Array, counts: Array) -> Array:
    """Draws (`ITEM_RESAMPLES`,) of the mean over seeds of the mean over levels; clusters are shared by the seeds."""
    seeds, clusters, _ = sums.shape
    rng = np.random.default_rng(0)
    weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=ITEM_RESAMPLES).astype(np.float64)
    drawn = np.einsum("rc,scl->rsl", weights, counts)  # (resamples, seeds, levels)
    with np.errstate(invalid="ignore"):  # a level without items in a draw is left out of that draw
        levels = np.where(drawn > 0, np.einsum("rc,scl->rsl", weights, sums) / drawn, np.nan)
    chosen = rng.integers(seeds, size=(ITEM_RESAMPLES, seeds))
    return np.asarray(np.take_along_axis(np.nanmean(levels, axis=2), chosen, axis=1).mean(axis=1))

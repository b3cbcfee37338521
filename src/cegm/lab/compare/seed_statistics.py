"""Paired statistics over seeds: differences, intervals, sign-flip p-values and what a design can detect at all.

Everything here takes numbers that are already paired, seed by seed, and knows nothing of methods, folders or measures;
`verdict.py` does the pairing. Items within seeds are in `item_statistics.py`. What scipy and statsmodels offer is used, but
for Holm and for exact sign flips, where tests hold ours against theirs.

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
in four. Below `CLAIM_SEEDS` seeds the interval is therefore Student's t over seeds. Below `INTERVAL_SEEDS` that is right,
but so wide (two seeds: 12.7 standard errors to each side) that it tells less than the seeds themselves, which are shown in
its place. From `CLAIM_SEEDS` on the interval is the bootstrap over seeds with expanded percentiles (Hesterberg 2015, "What
Teachers Should Know About the Bootstrap", arXiv 1411.5279), which widens the percentiles by exactly what resampling n
values understates. Strongly skewed differences (lognormal) are under-covered by every method at these sizes (.83 for t and
.62 for the bootstrap at 3 seeds).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

CLAIM_SEEDS = 8
"""Seeds from which on a comparison may be called a claim (a two-sided sign-flip test over 8 seeds reaches .0078)."""

INTERVAL_SEEDS = 5
"""Paired seeds from which on an effect is shown with an interval; with fewer, its points are shown."""

CONFIDENCE = 0.95
POWER = 0.80
EXACT_SEEDS = 13
"""Up to here all 2**n sign flips are enumerated; beyond, `RESAMPLES` random ones."""

RESAMPLES = 9999

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """A paired effect with what is known about its size.

    Attributes:
        estimate: The effect: a mean difference, or a ratio (see `paired_ratio`).
        low: Lower end of the 95 % interval; None with fewer than `INTERVAL_SEEDS` seeds.
        high: Upper end of the 95 % interval; None with fewer than `INTERVAL_SEEDS` seeds.
        p: Two-sided paired sign-flip p-value over seeds; None with fewer than two seeds.
        seeds: Number of paired seeds.
        smallest_detectable: Smallest true effect found with 80 % power at the two-sided 5 % level; None with fewer
            than `INTERVAL_SEEDS` seeds.
        interval_method: How the interval was made, in words, or why there is none.
        points: The effect on each seed, in their order.
        beyond_chance: Whether the 95 % interval, shown or not, excludes "no difference"; never with a single seed.
    """

    estimate: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    smallest_detectable: float | None
    interval_method: str
    points: tuple[float, ...]
    beyond_chance: bool


def summed_up(
    points: Array, interval: tuple[float, float], p: float, smallest_detectable: float, method: str
) -> Difference:
    """A difference over two seeds or more as it is shown; the one place that decides between interval and points.

    With fewer than `INTERVAL_SEEDS` seeds the mean comes with its points and p alone.
    """
    estimate, seeds = float(points.mean()), len(points)
    each, beyond_chance = tuple(points.tolist()), interval[0] > 0 or interval[1] < 0
    if seeds < INTERVAL_SEEDS:
        method = f"none: below {INTERVAL_SEEDS} seeds each one is shown"
        return Difference(estimate, None, None, p, seeds, None, method, each, beyond_chance)
    return Difference(estimate, *interval, p, seeds, smallest_detectable, method, each, beyond_chance)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of `first - second` over paired seeds.

    Returns:
        The mean difference as `summed_up` shows it, with a 95 % interval by t below `CLAIM_SEEDS` seeds, else by an
        expanded percentile bootstrap, the sign-flip p and the smallest detectable difference.

    Raises:
        ValueError: If the two differ in length, are empty or are not finite.
    """
    differences = paired(first, second)
    count = len(differences)
    if count < 2:
        (only,) = differences.tolist()
        return Difference(only, None, None, None, count, None, "none: one seed has no spread", (only,), False)
    low, high, method = mean_interval(differences)
    smallest = smallest_detectable_difference(float(differences.std(ddof=1)), count)
    return summed_up(differences, (low, high), sign_flip_p(differences), smallest, method)


def paired_ratio(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Geometric mean of `first / second` over paired seeds, for quantities that differ by a factor (times, memory).

    Returns:
        `paired_difference` of the logarithms, carried back by `exp`; `smallest_detectable` is a factor above one.

    Raises:
        ValueError: If a value is not positive, or as in `paired_difference`.
    """
    smallest = min([*first, *second], default=1.0)
    if smallest <= 0:
        raise ValueError(f"a ratio needs positive values, got {smallest}: check the run that reported it")
    logs = paired_difference(np.log(first).tolist(), np.log(second).tolist())
    low, high, detectable = (
        None if each is None else math.exp(each) for each in (logs.low, logs.high, logs.smallest_detectable)
    )
    return replace(
        logs,
        estimate=math.exp(logs.estimate),
        low=low,
        high=high,
        smallest_detectable=detectable,
        interval_method=logs.interval_method if low is None else f"{logs.interval_method}, of log ratios",
        points=tuple(math.exp(point) for point in logs.points),
    )


def mean_interval(values: Array) -> tuple[float, float, str]:
    """95 % interval of the mean of at least two values, and the name of its method (see the top of this file)."""
    count = len(values)
    error = float(stats.sem(values))
    if error == 0.0:
        return float(values[0]), float(values[0]), "no spread between seeds"
    if count < CLAIM_SEEDS:
        half = t_quantile(count) * error
        return float(values.mean()) - half, float(values.mean()) + half, "t over seeds"
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - 2 * expanded_tail(count),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high), "bootstrap over seeds, expanded percentiles"


def sign_flip_p(differences: Array) -> float:
    """Two-sided p of the mean against flipping the sign of each paired difference.

    Exact up to `EXACT_SEEDS` values (scipy's enumeration gives the same p and takes a hundred times as long, which a
    verdict with many axes and its simulation feel). The smallest value that n seeds can give is `2 / 2**n`: .25 for 3, .0625 for 5,
    .0078 for 8.
    """
    count = len(differences)
    if count <= EXACT_SEEDS:
        sums = np.abs(_flips(count) @ differences)
        # Sums that are equal but for rounding count as equal; the unflipped one comes first.
        return float(np.mean(sums >= sums[0] * (1 - 1e-12)))
    return float(
        stats.permutation_test(
            (differences,),
            lambda sample, axis: np.mean(sample, axis=axis),
            permutation_type="samples",  # with a single sample scipy flips signs
            vectorized=True,
            n_resamples=RESAMPLES,
            rng=np.random.default_rng(0),
        ).pvalue
    )


def equivalence_p(first: Sequence[float], second: Sequence[float], margin: float) -> float:
    """The larger p of two one-sided paired t-tests (TOST, Schuirmann 1987) of `-margin < mean of first - second < margin`.

    At most .05 exactly if the 90 % t interval lies within the margin, which has to be stated before the runs are seen. No
    evidence of a difference never shows this; a larger p here is no evidence of a difference.
    """
    differences = paired(first, second)
    if stats.sem(differences) == 0:  # without any spread the difference is what it is
        return float(abs(differences.mean()) >= margin)
    return float(ttost_paired(differences, np.zeros(len(differences)), -margin, margin)[0])


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment within one family (1979); a missing p stays missing and does not count.

    Statsmodels gives the same and collects garbage every time, which takes seconds where many items are in memory.
    """
    rising = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(rising):
        largest = max(largest, min(1.0, (len(rising) - rank) * p))
        adjusted[place] = largest
    return adjusted


def smallest_detectable_difference(spread: float, seeds: int) -> float:
    """Smallest true mean difference that this many seeds find with 80 % power at the two-sided 5 % level.

    `d(n) * spread`, where `d(n)` solves `P(|T| > t(.975, n-1)) = .80` for a noncentral t variable `T` with n-1 degrees
    of freedom and noncentrality `d * sqrt(n)` (the power of the paired t-test): d(3) = 3.26, d(5) = 1.68, d(8) = 1.16,
    d(20) = .66.

    Here `n` is the number of paired seeds, at least 2, and `spread` the standard deviation of the paired differences.
    """
    return _detectable_effect(seeds) * spread


@cache
def _detectable_effect(seeds: int) -> float:
    """`d(n)` of `smallest_detectable_difference`."""
    effect = TTestPower().solve_power(effect_size=None, nobs=seeds, alpha=1 - CONFIDENCE, power=POWER)
    return float(np.squeeze(effect))


@cache
def _flips(count: int) -> Array:
    """Every way to flip the signs of `count` values with the first one kept, which up to the common sign is all."""
    return np.array([(1.0, *signs) for signs in itertools.product((1.0, -1.0), repeat=count - 1)])


def paired(first: Sequence[float], second: Sequence[float]) -> Array:
    """Finite differences `first - second` of equally many values, at least one; `ValueError` otherwise."""
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(f"paired values must come in equal, non-zero numbers, got {len(first)} and {len(second)}")
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"paired values must be finite, got differences {differences.tolist()}: drop failed runs")
    return differences


def t_quantile(count: int) -> float:
    """Half-width of the 95 % t interval over `count` values, in standard errors."""
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))


def expanded_tail(count: int) -> float:
    """Tail per side whose bootstrap percentile reaches as far as the t interval does (Hesterberg 2015)."""
    return float(stats.norm.cdf(-math.sqrt(count / (count - 1)) * t_quantile(count)))

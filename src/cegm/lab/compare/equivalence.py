"""Whether two methods are shown to be equally good, which "no evidence" of a difference never shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from cegm.lab.compare.statistics import CONFIDENCE, paired

LOSS_MARGIN = 0.01
"""Bits per byte within which two methods count as equally good at predicting text.

In benchmarks/results/lengths CEGM gains .145 from 200 to 300 steps, so .01 is what about 2 % more steps buy there, and
little more than what runs that differ in rounding alone differ by (.005 nats, .007 bits). To show it takes differences
that vary little over seeds: with 80 % power, if there is no difference at all, a standard deviation of up to .0086 at 8
seeds, .011 at 12 and .015 at 20. Between methods it was .013 to .035 there (200 and 300 steps), between CEGM and its
controls about .005 (benchmarks/results/confirmation).
"""


@dataclass(frozen=True)
class Equivalence:
    """Whether a paired effect is shown to be smaller than a margin.

    Attributes:
        estimate: Mean difference.
        low: Lower end of the 90 % t interval, which lies within the margin exactly if `equivalent`; None with fewer
            than two seeds. Where lower is better, `high` below the margin alone says "not worse by the margin".
        high: Its upper end.
        p: The larger p of two one-sided paired t-tests; None with fewer than two seeds.
        margin: Largest difference that does not matter, stated beforehand, in the unit of the measure.
        equivalent: Whether `p` is at most .05: the difference lies within the margin. False is no evidence of a
            difference.
        seeds: Number of paired seeds.
    """

    estimate: float
    low: float | None
    high: float | None
    p: float | None
    margin: float
    equivalent: bool
    seeds: int


def equivalence(first: Sequence[float], second: Sequence[float], margin: float) -> Equivalence:
    """Two one-sided tests (TOST, Schuirmann 1987) of `-margin < mean of first - second < margin` over paired seeds.

    Args:
        first: One finite value per seed.
        second: One finite value per seed, in the same order.
        margin: Largest difference that does not matter, above zero. It has to be stated before the runs are seen.

    Returns:
        The test and the 90 % interval that goes with it.

    Raises:
        ValueError: If the margin is not positive, or as in `paired_difference`.
    """
    if not margin > 0:
        raise ValueError(f"a margin has to be above zero, got {margin}")
    differences = paired(first, second)
    estimate, count = float(differences.mean()), len(differences)
    if count < 2:
        return Equivalence(estimate, None, None, None, margin, False, count)
    half = float(stats.t.ppf(CONFIDENCE, count - 1) * stats.sem(differences))
    p = float(abs(estimate) >= margin)  # without any spread the difference is what it is
    if half > 0:
        p = float(ttost_paired(differences, np.zeros(count), -margin, margin)[0])
    return Equivalence(estimate, estimate - half, estimate + half, p, margin, p <= 1 - CONFIDENCE, count)


def no_loss(first: Sequence[float], second: Sequence[float]) -> Equivalence:
    """Whether two methods' validation losses are equivalent within `LOSS_MARGIN`.

    Args:
        first: Final validation loss per seed, in bits per byte.
        second: The same of the other method, in the same order.

    Returns:
        The `equivalence` of the two; only `equivalent` permits the words "no loss".
    """
    return equivalence(first, second, LOSS_MARGIN)

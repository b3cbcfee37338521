"""Times to a target, in which a run that misses it counts as a miss and never as absent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cegm.compare.statistics import Difference, paired_difference


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


@dataclass(frozen=True)
class Survival:
    """Which share of the runs of a method is still above the target at each time (Kaplan-Meier).

    Attributes:
        times: Times at which a run reached the target or ended without it, rising.
        waiting: Estimated share above the target from each of these times on; before the first it is one.
        median: First time at which no more than half is above the target; None if that is never seen.
        restricted_mean: Mean time to the target, counted up to the horizon: the area under the curve.
        horizon: Where the area ends.
        reached: Runs that reached the target.
        runs: All runs.
    """

    times: tuple[float, ...]
    waiting: tuple[float, ...]
    median: float | None
    restricted_mean: float
    horizon: float
    reached: int
    runs: int


def survival(times: Sequence[float | None], ends: Sequence[float], horizon: float) -> Survival:
    """Kaplan-Meier curve of the time to a target; a miss is censored at the end of its own run.

    Args:
        times: Time to target of each run, None for a miss.
        ends: Where each run ended, in the same unit and order.
        horizon: End of the area, no later than the longest run unless all runs reach the target.

    Returns:
        Curve, median and restricted mean. If every miss was followed to the horizon at least, the restricted mean is
        the mean of `min(time, horizon)`.

    Raises:
        ValueError: If there are no runs, a run reaches the target after its end, or the horizon lies where nobody was
            watched.
    """
    if len(times) != len(ends) or len(times) == 0:
        raise ValueError(f"times and ends must come in equal, non-zero numbers, got {len(times)} and {len(ends)}")
    reached = [time for time in times if time is not None]
    if any(time is not None and time > end for time, end in zip(times, ends, strict=True)):
        raise ValueError(f"a run cannot reach the target after its end: times {list(times)}, ends {list(ends)}")
    missed = [end for time, end in zip(times, ends, strict=True) if time is None]
    curve = stats.ecdf(stats.CensoredData(uncensored=reached, right=missed)).sf
    steps, shares = curve.quantiles, curve.probabilities
    if horizon <= 0 or (shares[-1] > 0 and horizon > steps[-1]):
        raise ValueError(
            f"the horizon has to lie above 0 and no later than the longest run, {steps[-1]}; got {horizon}"
        )
    edges = np.clip(np.concatenate([[0.0], steps, [horizon]]), 0.0, horizon)
    halved = np.flatnonzero(shares <= 0.5 + 1e-12)  # a product of fractions may miss one half by rounding
    return Survival(
        times=tuple(steps.tolist()),
        waiting=tuple(shares.tolist()),
        median=float(steps[halved[0]]) if len(halved) else None,
        restricted_mean=float(np.diff(edges) @ np.concatenate([[1.0], shares])),
        horizon=horizon,
        reached=len(reached),
        runs=len(times),
    )


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

"""Times to a target, in which a run that misses it counts as a miss and never as absent."""

from __future__ import annotations

from collections.abc import Sequence

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

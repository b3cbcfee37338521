"""Times to a target with misses, against statsmodels and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.duration.survfunc import SurvfuncRight

from cegm.compare import survival


def test_time_to_target_takes_the_first_evaluation_or_misses() -> None:
    assert survival.time_to_target([0, 100, 200], [5.0, 3.0, 2.0], 3.0) == 100
    assert survival.time_to_target([0, 100, 200], [5.0, 3.0, 2.0], 1.9) is None


def test_restricted_mean_equals_the_area_under_kaplan_meier() -> None:
    times, horizon = [120.0, None, 180.0, None, 150.0], 200.0
    observed = np.array([horizon if time is None else time for time in times])
    curve = SurvfuncRight(observed, np.array([time is not None for time in times]))
    edges = np.concatenate([[0.0], curve.surv_times, [horizon]])
    area = float(np.sum(np.diff(edges) * np.concatenate([[1.0], curve.surv_prob])))
    result = survival.restricted_mean_difference(times, [horizon] * 5, horizon)
    assert result.estimate == pytest.approx(area - horizon)


def test_a_miss_counts_against_the_method_that_misses() -> None:
    result = survival.restricted_mean_difference([None, 150.0, 160.0], [150.0, 150.0, 150.0], 200.0)
    assert result.estimate == pytest.approx(20.0)


REMISSIONS = [6, 6, 6, 7, 10, 13, 16, 22, 23] + [None] * 12
STILL_WELL = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]


def test_kaplan_meier_of_the_leukemia_trial() -> None:
    """Weeks in remission under 6-MP: Freireich et al. 1963; curve and median as in Cox and Oakes 1984, table 1.1 ff."""
    ends = [35] * 9 + STILL_WELL
    found = survival.survival(REMISSIONS, ends, 35)
    curve = dict(zip(found.times, found.waiting, strict=True))
    published = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert {time: round(curve[time], 3) for time in published} == published
    assert (found.median, found.reached, found.runs) == (23, 9, 21)
    assert found.restricted_mean == pytest.approx(23.29, abs=0.005)  # R: print(survfit(...), rmean = 35)


def test_kaplan_meier_agrees_with_statsmodels() -> None:
    rng = np.random.default_rng(0)
    times, ends = rng.integers(1, 30, 40).astype(float), rng.integers(5, 30, 40).astype(float)
    observed, seen = np.minimum(times, ends), times <= ends
    expected = SurvfuncRight(observed, seen)
    found = survival.survival([t if ok else None for t, ok in zip(times, seen, strict=True)], ends.tolist(), 20)
    curve = dict(zip(found.times, found.waiting, strict=True))
    assert [curve[time] for time in expected.surv_times] == pytest.approx(expected.surv_prob)
    assert found.median == expected.quantile(0.5)


@pytest.mark.parametrize("horizon", [140.0, 200.0])
def test_the_area_is_the_mean_time_when_misses_end_at_the_horizon_or_later(horizon: float) -> None:
    times = [120.0, None, 180.0, None, 150.0]
    found = survival.survival(times, [200.0] * 5, horizon)
    assert found.restricted_mean == pytest.approx(np.mean([min(horizon, time or 200.0) for time in times]))


def test_a_target_that_half_the_runs_reach_has_a_median_and_one_that_nobody_reaches_has_none() -> None:
    assert survival.survival([50.0, None, 60.0, None, None, 70.0], [100.0] * 6, 100.0).median == 70.0
    missed = survival.survival([None, None], [80.0, 100.0], 100.0)
    assert (missed.median, missed.restricted_mean, missed.reached) == (None, 100.0, 0)


def test_a_run_that_ended_early_is_no_miss_of_the_whole_horizon() -> None:
    """Two runs that both reach it at 90, and a third that was only watched to 10: it says nothing of later times."""
    found = survival.survival([90.0, 90.0, None], [100.0, 100.0, 10.0], 100.0)
    assert found.restricted_mean == pytest.approx(90.0)


@pytest.mark.parametrize(
    ("times", "ends", "horizon", "message"),
    [
        ([], [], 10.0, "non-zero"),
        ([5.0], [10.0, 10.0], 10.0, "equal"),
        ([12.0], [10.0], 10.0, "after its end"),
        ([5.0, None], [10.0, 10.0], 11.0, "horizon"),
        ([5.0], [10.0], 0.0, "horizon"),
    ],
)
def test_what_nobody_watched_is_refused(
    times: list[float | None], ends: list[float], horizon: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        survival.survival(times, ends, horizon)

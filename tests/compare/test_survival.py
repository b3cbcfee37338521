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

"""The coefficients are those of the best approximation, derived anew by a linear programme."""

import numpy as np
import pytest
from scipy.optimize import linprog

from cegm.mapping.minimax import LIMIT, QUINTICS, SMALLEST


def best(low, high, points=4000):
    """The odd quintic nearest to 1 on [low, high] in the largest deviation, and that deviation."""
    x = np.geomspace(low, high, points)
    powers = np.stack([x, x**3, x**5], axis=1)
    slack = -np.ones((points, 1))
    found = linprog(
        [0, 0, 0, 1],
        A_ub=np.block([[powers, slack], [-powers, slack]]),
        b_ub=np.concatenate([np.ones(points), -np.ones(points)]),
        bounds=[(None, None)] * 3 + [(0, None)],
    )
    return found.x[:3], found.x[3]


def test_each_quintic_is_the_best_on_what_the_one_before_has_left():
    low, high = SMALLEST, 1.0
    for quintic in QUINTICS:
        expected, error = best(low, high)
        assert quintic == pytest.approx(expected, rel=2e-4)
        low, high = 1 - error, 1 + error
    assert error == pytest.approx(0.0125, abs=1e-4)


def test_the_composition_brings_the_whole_interval_to_one():
    x = np.geomspace(SMALLEST, 1, 10_000)
    for a, b, c in QUINTICS:
        x = a * x + b * x**3 + c * x**5
    assert abs(x - 1).max() < 0.0126


def test_smaller_values_grow_and_stay_below():
    start = np.geomspace(1e-8, SMALLEST, 1000)
    x = start
    for a, b, c in QUINTICS:
        x = a * x + b * x**3 + c * x**5
    assert (x > 90 * start).all()
    assert (x < 1.0126).all()


def test_the_limit_cubes_an_error():
    a, b, c = LIMIT
    for error in (-1e-2, 1e-2, 1e-3):
        x = 1 + error
        assert abs(a * x + b * x**3 + c * x**5 - 1) < 3 * abs(error) ** 3

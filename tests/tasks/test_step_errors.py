"""Implied errors: against numbers by hand and a simulation."""

import random

import pytest

from cegm.tasks.steps import implied_wrong_steps


def test_implied_curves_are_those_of_independent_errors():
    implied = implied_wrong_steps(0.9, 10)
    assert implied.apart == pytest.approx([0.1 * step for step in range(1, 11)])
    assert implied.carried[:3] == pytest.approx([0.1, 0.1 + 0.19, 0.1 + 0.19 + 0.271])
    for accuracy in (0.0, 1.0):
        edge = implied_wrong_steps(accuracy, 10)
        assert edge.apart == edge.carried == [(1 - accuracy) * step for step in range(1, 11)]


def test_implied_curves_agree_with_a_simulation():
    rng = random.Random(0)
    apart, carried = [0.0] * 10, [0.0] * 10
    for _ in range(20000):
        right = [rng.random() < 0.8 for _ in range(10)]
        for step in range(10):
            apart[step] += sum(not each for each in right[: step + 1]) / 20000
            carried[step] += sum(not all(right[: s + 1]) for s in range(step + 1)) / 20000
    implied = implied_wrong_steps(0.8, 10)
    assert implied.apart == pytest.approx(apart, abs=0.05)
    assert implied.carried == pytest.approx(carried, abs=0.1)

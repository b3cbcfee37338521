"""Fronts of retention: read at equal new loss, monotone, and a dash where rates do not reach."""

import math

import pytest

import retention_front

BEFORE = {"new": 4.0, "general": 2.0}


def line(rule, new, forgotten, seed=0):
    return {
        "rule": rule, "seed": seed, "new": new, "forgotten": forgotten, "general": 2.0 + forgotten,
        "divergence": forgotten, "before": BEFORE,
    }  # fmt: skip


def front_of(rule, scale, seed=0):
    return [line(rule, new, scale * (4.0 - new) ** 2, seed) for new in (3.8, 3.5, 3.0, 2.5, 2.2, 2.0)]


def test_a_rule_that_forgets_half_has_half_everywhere():
    lines = front_of("adamw", 0.1) + front_of("kept", 0.05)
    for measure in retention_front.MEASURES:
        table = retention_front.ratios(lines, measure)
        assert table["kept"] == pytest.approx([0.5] * 4)
        assert table["adamw"] == pytest.approx([1.0] * 4)


def test_a_front_is_monotone_and_read_between_its_rates():
    lines = [line("a", 3.0, 0.3), line("a", 2.5, 0.1), line("a", 2.0, 0.5)]
    losses, forgotten = retention_front.front(lines, "forgotten")
    assert losses.tolist() == [3.0, 2.5, 2.0]
    assert forgotten.tolist() == [0.1, 0.1, 0.5]
    assert retention_front.at(lines, "forgotten", 2.25) == pytest.approx(0.3)


@pytest.mark.parametrize("new", [3.1, 1.9])
def test_nothing_is_said_beyond_the_rates_that_were_tried(new):
    assert math.isnan(retention_front.at([line("a", 3.0, 0.3), line("a", 2.0, 0.5)], "forgotten", new))


def test_seeds_are_paired():
    lines = (
        front_of("adamw", 0.1, 0) + front_of("adamw", 0.2, 1) + front_of("kept", 0.05, 0) + front_of("kept", 0.05, 1)
    )
    assert retention_front.ratios(lines, "forgotten")["kept"] == pytest.approx([(0.5 + 0.25) / 2] * 4)

"""Fronts of retention: read at equal new loss, monotone, and a dash where a rule does not reach."""

import math

import pytest

import retention_front

BEFORE = {"new": 4.0, "general": 2.0}


def line(rule, new, forgotten, seed=0):
    return {
        "rule": rule, "seed": seed, "new": new, "forgotten": forgotten, "general": 2.0 + forgotten,
        "divergence": forgotten, "before": BEFORE,
    }  # fmt: skip


def test_a_rule_that_forgets_half_has_half_everywhere():
    lines = [line("adamw", 3.0, 0.1), line("adamw", 2.0, 0.4)]
    lines += [line("kept", 3.0, 0.05), line("kept", 2.0, 0.2)]
    for measure in retention_front.MEASURES:
        table = retention_front.ratios(lines, measure)
        assert table["kept"] == pytest.approx([0.5] * 4)
        assert table["adamw"] == pytest.approx([1.0] * 4)


def test_a_front_is_monotone_and_begins_at_the_model_before():
    losses, forgotten = retention_front.front([line("a", 3.0, 0.3), line("a", 2.5, 0.1)], "forgotten")
    assert losses.tolist() == [4.0, 3.0, 2.5]
    assert forgotten.tolist() == [0.0, 0.1, 0.1]
    assert retention_front.at([line("a", 3.0, 0.2)], "forgotten", 3.5) == pytest.approx(0.1)


def test_what_a_rule_does_not_reach_is_told_as_such():
    lines = [line("adamw", 2.0, 0.4), line("slow", 3.0, 0.1)]
    table = retention_front.ratios(lines, "forgotten")
    assert table["slow"][:2] == pytest.approx([0.5, 0.5])
    assert all(math.isnan(value) for value in table["slow"][2:])


def test_seeds_are_paired():
    lines = [
        line("adamw", 2.0, 0.4, 0),
        line("adamw", 2.0, 0.2, 1),
        line("kept", 2.0, 0.1, 0),
        line("kept", 2.0, 0.1, 1),
    ]
    assert retention_front.ratios(lines, "forgotten")["kept"][1] == pytest.approx((0.25 + 0.5) / 2)

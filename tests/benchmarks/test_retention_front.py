"""Logs of retention.py reach the product's fronts as they are; `tests/lab/compare/test_fronts.py` has what these say."""

import pytest

pytest.importorskip("statsmodels")

import retention_front


def line(rule, new, forgotten, seed=0):
    return {
        "rule": rule, "seed": seed, "rate": 4.0 - new, "new": new, "forgotten": forgotten, "general": 2.0 + forgotten,
        "divergence": forgotten, "before": {"new": 4.0, "general": 2.0},
    }  # fmt: skip


def front_of(rule, scale, seed=0):
    return [line(rule, new, scale * (4.0 - new) ** 2, seed) for new in (3.8, 3.5, 3.0, 2.5, 2.2, 2.0)]


def test_a_rule_that_forgets_half_has_half_in_every_measure():
    lines = front_of("adamw", 0.1) + front_of("kept", 0.05)
    for measure in retention_front.MEASURES:
        found = retention_front.entries(lines, measure)
        assert [retention_front.cell(each) for each in found["kept"]] == ["0.50"] * 4
        assert [retention_front.cell(each) for each in found["adamw"]] == ["1.00"] * 4


def test_a_loss_that_fell_has_no_ratio_and_what_was_not_reached_is_a_dash():
    lines = [*front_of("adamw", -0.1), line("kept", 3.2, -0.02), line("kept", 2.6, -0.1)]
    cells = [retention_front.cell(each) for each in retention_front.entries(lines, "general")["kept"]]
    assert cells[0] == cells[2] == cells[3] == "-"
    assert cells[1] == "+0.300"

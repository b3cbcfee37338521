"""Charts of the axes hold the numbers of the verdict."""

from __future__ import annotations

from typing import Any

import pytest

from cegm.lab.report import levels
from cegm.lab.report.judged import Judged
from verdicts import axis, judged_on

METHODS = ["cegm", "adamw"]


def entries(*made: tuple[str, float, float | None, dict[str, float]]) -> list[dict[str, Any]]:
    return axis("made", {"adamw": "better"}, list(made))[1]


def values(chart: Any) -> list[dict[str, Any]]:
    """Data of all layers."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_points_are_in_the_order_of_the_levels() -> None:
    made = entries(("", 2.0, 0.5, {"cegm": 0.4, "adamw": 0.3}), ("", 1.0, 0.5, {"cegm": 0.6, "adamw": 0.5}))
    points = levels.level_points(made, METHODS)
    assert [(point["method"], point["level"], point["mean"]) for point in points] == [
        *(("CEGM", 1.0, 0.6), ("CEGM", 2.0, 0.4), ("AdamW", 1.0, 0.5), ("AdamW", 2.0, 0.3)),
    ]
    assert points[0]["low"] == pytest.approx(0.59)


def test_one_level_makes_no_line() -> None:
    made = entries(("", 1.0, 0.5, {"cegm": 0.6, "adamw": 0.5}))
    assert levels.by_level(made, [], METHODS, "x", "y", "accuracy") is None
    assert levels.by_level([], [], METHODS, "x", "y", "accuracy") is None


def test_chance_and_controls_are_dashed_and_named_once() -> None:
    made = entries(*(("", level, 0.5, {"cegm": 0.6, "adamw": 0.5}) for level in (1.0, 2.0)))
    control = entries(*(("identity", level, None, {"cegm": 1.0, "adamw": 1.0}) for level in (1.0, 2.0)))
    found = values(levels.by_level(made, control, METHODS, "x", "y", "accuracy"))
    lines = {(row["label"], row["level"]): row["mean"] for row in found if "label" in row}
    assert lines == {("chance", 1.0): 0.5, ("chance", 2.0): 0.5, ("identity", 1.0): 1.0, ("identity", 2.0): 1.0}


def test_convergence_goes_from_nobody_at_the_start_to_the_horizon() -> None:
    survival = {
        "horizon": 100,
        "methods": {"cegm": {"curve": [[40, 0.5], [60, 1.0]], "runs": 2}, "adamw": {"curve": [], "runs": 2}},
    }
    found = {(row["method"], row["step"]): row["share"] for row in values(levels.convergence(survival, METHODS))}
    assert found == {
        **{("CEGM", 0.0): 0.0, ("CEGM", 40.0): 0.5, ("CEGM", 60.0): 1.0, ("CEGM", 100.0): 1.0},
        **{("AdamW", 0.0): 0.0, ("AdamW", 100.0): 0.0},
    }
    assert levels.convergence({"horizon": 100, "methods": {}}, METHODS) is None


def test_errors_add_up_beside_what_the_first_step_implies() -> None:
    right = {1: 0.9, 2: 0.7, 3: 0.7}
    made = entries(*(("free", float(step), 0.25, {"cegm": right[step], "adamw": 0.5}) for step in (3, 1, 2)))
    assert levels.wrong_steps(made, "cegm") == pytest.approx([0.1, 0.4, 0.7])
    assert levels.wrong_steps(made, "muon") == []
    for carried, implied in ((True, 0.1 + 0.19 + 0.271), (False, 0.3)):
        own = [row for row in values(levels.errors(made, METHODS, carried=carried)) if row["method"] == "CEGM"]
        assert sorted(row["wrong"] for row in own if row["step"] == 3) == pytest.approx([implied, 0.7])
    guessed = [row["wrong"] for row in values(levels.errors(made, METHODS, carried=True)) if row["method"] == "chance"]
    assert sorted(set(guessed)) == pytest.approx([0.75, 1.5, 2.25])


def test_a_verdict_tells_controls_from_models() -> None:
    made = [
        ("model", 1.0, None, {"cegm": 0.4, "adamw": 0.3}),
        ("control: identity", 1.0, None, {"cegm": 1.0, "adamw": 1.0}),
    ]
    verdict = Judged(judged_on([axis("drift", {"adamw": "better"}, made)], {"adamw": "better"}))
    assert [entry["subset"] for entry in verdict.levels("drift")] == ["model"]
    assert [entry["subset"] for entry in verdict.controls("drift")] == ["identity"]
    assert verdict.axes == ["drift"]
    assert (verdict.subject, verdict.baseline) == ("cegm", "adamw")
    assert verdict.levels("noise") == []
    assert verdict.entry("noise", "adamw") is None

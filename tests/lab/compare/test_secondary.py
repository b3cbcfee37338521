"""Survival, "no loss" and the cost of a right answer on frames whose answers are known by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cegm.lab.compare import secondary
from cegm.lab.compare.secondary import LOSS_MARGIN

NAN = math.nan


def runs(method: str, times: list[float], steps: float = 200, **columns: Any) -> pd.DataFrame:
    own = {"method": method, "seed": range(len(times)), "status": "finished", "steps": steps, "steps_to_target": times}
    return pd.DataFrame({**own, **columns})


def test_shares_that_reached_the_target_by_each_step() -> None:
    main = pd.concat([runs("cegm", [100, 150, 100, 200]), runs("adamw", [NAN, 200, NAN, NAN])])
    found = secondary.survival_curves(main, ["cegm", "adamw"])
    assert found == {
        "unit": "steps",
        "horizon": 200.0,
        "methods": {
            "cegm": {"curve": [[0, 0], [100, 0.5], [150, 0.75], [200, 1]], "median": 100, "reached": 4, "runs": 4},
            "adamw": {"curve": [[0, 0], [200, 0.25]], "median": None, "reached": 1, "runs": 4},
        },
    }


def test_the_staircase_goes_on_to_the_end_and_nobody_reaches_it_is_a_flat_one() -> None:
    curves = secondary.survival_curves(pd.concat([runs("cegm", [50.0]), runs("adamw", [NAN])]), ["cegm", "adamw"])
    assert curves is not None
    assert curves["methods"]["cegm"]["curve"] == [[0, 0], [50, 1], [200, 1]]
    assert curves["methods"]["adamw"]["curve"] == [[0, 0], [200, 0]]


def test_a_target_that_is_reached_before_training_is_one_stair() -> None:
    curves = secondary.survival_curves(runs("cegm", [0.0, 0.0]), ["cegm"])
    assert curves is not None
    assert curves["methods"]["cegm"] == {"curve": [[0, 1], [200, 1]], "median": 0, "reached": 2, "runs": 2}


def test_a_failed_run_is_a_miss_that_stays_in_the_count() -> None:
    main = runs("cegm", [100, 100, NAN, NAN], status=["finished", "finished", "failed", "failed"])
    main.loc[main["status"] == "failed", "steps"] = NAN
    curves = secondary.survival_curves(main, ["cegm"])
    assert curves is not None
    assert curves["methods"]["cegm"] == {
        "curve": [[0, 0], [100, 0.5], [200, 0.5]],
        "median": 100,
        "reached": 2,
        "runs": 4,
    }


def test_runs_that_end_earlier_are_drawn_as_far_as_they_were_watched() -> None:
    curves = secondary.survival_curves(pd.concat([runs("cegm", [NAN], 80), runs("adamw", [NAN])]), ["cegm", "adamw"])
    assert curves is not None
    assert curves["methods"]["cegm"]["curve"] == [[0, 0], [80, 0]]


def test_without_any_finished_run_there_are_no_curves() -> None:
    assert secondary.survival_curves(runs("cegm", [NAN], NAN, status="failed"), ["cegm"]) is None


def losses(gap: float, seeds: int = 12, spread: float = 0.002) -> pd.DataFrame:
    """Two methods whose losses differ by `gap`, give or take `spread`."""
    base = np.linspace(2.0, 2.1, seeds)
    own = base + gap + spread * np.resize([1.0, -1.0], seeds)
    each = [runs(m, [NAN] * seeds, bits_per_byte=values) for m, values in (("cegm", own), ("adamw", base))]
    return pd.concat(each, ignore_index=True)


def test_no_loss_is_shown_within_the_margin_only() -> None:
    paired = {("cegm", "adamw"): range(12)}
    (near,) = secondary.no_loss(losses(0.005), paired)
    assert (near["pair"], near["margin"], near["no_loss"]) == (["cegm", "adamw"], LOSS_MARGIN, True)
    # The worse side by hand: differences .007 and .003, standard error .002 * sqrt(12 / 11) / sqrt(12).
    t = (LOSS_MARGIN - 0.005) / (0.002 / math.sqrt(11))
    assert near["p"] == pytest.approx(_upper_tail(t, 11), rel=1e-6)
    (apart,) = secondary.no_loss(losses(0.011), paired)
    assert apart["no_loss"] is False
    assert apart["p"] > 0.5


def _upper_tail(t: float, freedom: int) -> float:
    from scipy import stats

    return float(stats.t.sf(t, freedom))


def test_no_loss_takes_paired_seeds_and_needs_two_of_them() -> None:
    main = losses(0.0)
    main.loc[(main["method"] == "cegm") & (main["seed"] == 3), "bits_per_byte"] = 9.0  # a run that is not paired
    (found,) = secondary.no_loss(main, {("cegm", "adamw"): [0, 1, 2, 4, 5, 6]})
    assert found["no_loss"] is True
    assert secondary.no_loss(main, {("cegm", "adamw"): [0], ("cegm", "muon"): []}) == []


def test_a_loss_that_was_not_measured_is_not_judged() -> None:
    main = losses(0.0).assign(bits_per_byte=NAN)
    assert secondary.no_loss(main, {("cegm", "adamw"): range(12)}) == []


def test_nobody_who_failed_is_without_loss() -> None:
    main = losses(0.0)
    main.loc[(main["method"] == "cegm") & (main["seed"] == 11), "status"] = "failed"
    (found,) = secondary.no_loss(main, {("cegm", "adamw"): range(11)})
    assert found["p"] < 0.05
    assert found["no_loss"] is False


def examined(method: str, seconds: list[float], tokens: list[int | None]) -> pd.DataFrame:
    axes = [
        json.dumps({"efficiency": {"reason": "", "seconds": each, "tokens": read}})
        for each, read in zip(seconds, tokens, strict=True)
    ]
    return runs(method, [NAN] * len(seconds), axes=axes)


def answers(method: str, seed: int, right: int, axis: str = "efficiency") -> pd.DataFrame:
    return pd.DataFrame({"axis": axis, "method": method, "seed": seed, "score": [1.0] * right + [0.0] * (10 - right)})


def test_a_right_answer_costs_the_whole_examination_over_the_right_ones() -> None:
    items = pd.concat([answers("cegm", 0, 5), answers("cegm", 1, 2), answers("cegm", 0, 10, "steps")])
    found = secondary.cost_per_correct(examined("cegm", [10.0, 8.0], [1000, 1000]), items)
    assert found == {"cegm": {"seconds": (2.0 + 4.0) / 2, "tokens": (200.0 + 500.0) / 2}}


def test_nothing_right_and_nothing_counted_have_no_cost() -> None:
    main = pd.concat([examined("cegm", [10.0, 8.0], [1000, 1000]), examined("adamw", [10.0], [None])])
    items = pd.concat([answers("cegm", 0, 5), answers("cegm", 1, 0), answers("adamw", 0, 5)])
    assert secondary.cost_per_correct(main, items) == {
        "cegm": {"seconds": None, "tokens": None},
        "adamw": {"seconds": 2.0, "tokens": None},
    }


def test_without_the_axis_there_are_no_costs() -> None:
    main = examined("cegm", [1.0], [1])
    assert secondary.cost_per_correct(main, pd.DataFrame()) == {}
    assert secondary.cost_per_correct(main, answers("cegm", 0, 5, "steps")) == {}
    assert secondary.cost_per_correct(main.drop(columns="axes"), answers("cegm", 0, 5)) == {}

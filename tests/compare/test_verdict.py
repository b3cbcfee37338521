"""The verdict on frames built by hand: words, families, pairing, failures, misses, and false alarms under the null."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cegm.compare import verdict

EMPTY_CURVES = pd.DataFrame(columns=["id", "step", "tokens", "seconds", "loss", "bits_per_byte"])
GAINS = {"adamw": 0.0, "muon": 0.10, "cegm": 0.15}


def results(seeds: int = 3, gains: dict[str, float] = GAINS, noise: float = 0.005, **changes: Any) -> pd.DataFrame:
    """One main run per method and seed; seed effects are common to the methods, `noise` is not."""
    rng = np.random.default_rng(0)
    base = rng.normal(2.0, 0.05, seeds)
    rows = [
        {
            "id": f"{method}{seed}",
            "method": method,
            "seed": seed,
            "role": "main",
            "status": "finished",
            "error": None,
            "attempts": 1,
            "final_loss": base[seed] - gain + rng.normal(0, noise),
            "bits_per_byte": base[seed] - gain + rng.normal(0, noise),
            "median_step_seconds": 0.1,
            "memory_bytes": 1e9,
            "optimizer_state_bytes": 8e6 if method == "adamw" else 4e6,
            "steps": 200,
            "initial_hash": f"w{seed}",
            "batch_hash": f"b{seed}",
            **changes,
        }
        for method, gain in gains.items()
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def entry(judged: dict[str, Any], measure: str, first: str, second: str) -> dict[str, Any]:
    pairs = next(one["pairs"] for one in judged["measures"] if one["name"] == measure)
    found: dict[str, Any] = next(pair for pair in pairs if pair["pair"] == [first, second])
    return found


def judge(
    frame: pd.DataFrame, items: pd.DataFrame | None = None, curves: pd.DataFrame = EMPTY_CURVES
) -> dict[str, Any]:
    return verdict.judge(frame, pd.DataFrame() if items is None else items, curves)


def test_three_seeds_are_a_screening_whose_words_follow_the_intervals() -> None:
    judged = judge(results())
    pair = entry(judged, "bits_per_byte", "cegm", "adamw")
    assert pair["word"] == "better"
    assert pair["effect"] == pytest.approx(-0.15, abs=0.02)
    assert pair["interval"][1] < 0
    assert (pair["p"], pair["n"]) == (0.25, 3)
    assert judged["screening"] is True
    assert "screening with 3 paired seeds, not a claim" in judged["statement"]
    assert "below p = 0.25" in judged["statement"]


def test_eight_seeds_need_holm_and_reach_it() -> None:
    judged = judge(results(8))
    pair = entry(judged, "bits_per_byte", "cegm", "muon")
    assert pair["p"] == pytest.approx(2 / 2**8)
    assert pair["p_holm"] == pytest.approx(3 * 2 / 2**8)  # three pairs; retention was not measured
    assert pair["word"] == "better"
    assert judged["screening"] is False


def test_losing_a_seed_does_not_make_it_easier_to_win() -> None:
    """Seven seeds of a claim are judged by the rule of the claim: 7 seeds with three pairs reach .047, not the interval."""
    frame = results(8, {"adamw": 0.0, "muon": 0.004, "cegm": 0.006}, noise=0.001)
    frame.loc[(frame["method"] == "muon") & (frame["seed"] == 2), "initial_hash"] = "other"
    judged = judge(frame)
    pair = entry(judged, "bits_per_byte", "cegm", "muon")
    assert pair["n"] == 7
    assert pair["interval"][1] < 0
    assert pair["p_holm"] is not None
    assert (pair["word"] == "better") == (pair["p_holm"] <= 0.05)
    assert "7 of 8 planned seeds" in judged["statement"]


def test_more_comparisons_than_the_seeds_can_carry_are_announced() -> None:
    gains = {"adamw": 0.0, "muon": 0.1, "cegm": 0.2, "soap": 0.3, "normuon": 0.4}
    judged = judge(results(8, gains))
    assert {pair["word"] for pair in judged["measures"][0]["pairs"]} == {"no evidence"}
    assert judged["statement"].endswith(
        "With 10 primary comparisons no adjusted p can reach .05 here: that takes 9 seeds."
    )
    assert {pair["word"] for pair in judge(results(9, gains))["measures"][0]["pairs"]} != {"no evidence"}


def test_words_turn_with_the_direction_of_the_measure_and_the_pair() -> None:
    judged = judge(results(8, {"adamw": 0.2, "cegm": 0.0}))
    assert entry(judged, "bits_per_byte", "cegm", "adamw")["word"] == "worse"
    assert [pair["pair"] for pair in judged["measures"][0]["pairs"]] == [["cegm", "adamw"]]


@pytest.mark.parametrize(("seeds", "allowed"), [(3, 0.09), (8, 0.07)])
def test_false_alarms_under_the_null(seeds: int, allowed: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Per comparison 5 % in a screening; in a claim 5 % for the family of all three pairs (plus two standard errors)."""
    monkeypatch.setattr(verdict.statistics, "RESAMPLES", 200)
    monkeypatch.setattr(verdict.statistics, "smallest_detectable_difference", lambda *_: 0.0)  # slow, and not at stake
    rng, alarms = np.random.default_rng(7), []
    for _ in range(300):
        values = rng.normal(size=(3, seeds)).tolist()
        effects = [verdict.statistics.paired_difference(*pair) for pair in itertools.combinations(values, 2)]
        entries = [
            {
                "pair": ["a", "b"],
                "n": seeds,
                "seeds": [],
                "failed": [],
                "effect": e.estimate,
                "interval": [e.low, e.high],
            }
            for e in effects
        ]
        for one, adjusted in zip(entries, verdict.statistics.holm([e.p for e in effects]), strict=True):
            one["p_holm"] = adjusted
        words = [verdict._word(verdict.MEASURES[0], one, seeds >= 8) != "no evidence" for one in entries]
        alarms.append(any(words) if seeds >= verdict.CLAIM_SEEDS else words[0])
    assert np.mean(alarms) <= allowed


def test_a_seed_with_other_batches_or_weights_is_refused_in_one_line() -> None:
    frame = results()
    frame.loc[(frame["method"] == "cegm") & (frame["seed"] == 1), "batch_hash"] = "other"
    frame.loc[(frame["method"] == "muon") & (frame["seed"] == 2), "initial_hash"] = "other"
    judged = judge(frame)
    reasons = {(*line["pair"], line["seed"]): line["reason"] for line in judged["refused"]}
    assert "batch_hash" in reasons["cegm", "adamw", 1]
    assert "initial_hash" in reasons["cegm", "muon", 2]
    assert all("\n" not in reason for reason in reasons.values())
    assert entry(judged, "bits_per_byte", "cegm", "adamw")["seeds"] == [0, 2]
    assert entry(judged, "bits_per_byte", "cegm", "muon")["seeds"] == [0]


def test_a_failed_run_is_listed_and_its_method_is_not_called_better() -> None:
    frame = results(4)
    failed = (frame["method"] == "cegm") & (frame["seed"] == 3)
    frame.loc[failed, ["status", "error"]] = ["failed", "loss is NaN at step 7"]
    frame.loc[failed, ["bits_per_byte", "final_loss", "initial_hash", "batch_hash"]] = [math.nan, math.nan, None, None]
    judged = judge(frame)
    assert [(line["method"], line["seed"], line["error"]) for line in judged["failed"]] == [
        ("cegm", 3, "loss is NaN at step 7")
    ]
    pair = entry(judged, "bits_per_byte", "cegm", "adamw")
    assert pair["failed"] == [{"method": "cegm", "seed": 3}]
    assert pair["interval"][1] < 0  # the finished seeds alone would say "better"
    assert pair["word"] == "no evidence"
    assert entry(judged, "bits_per_byte", "muon", "adamw")["word"] == "better"


def test_all_runs_of_a_method_failed() -> None:
    frame = results()
    frame.loc[frame["method"] == "cegm", ["status", "error"]] = ["failed", "killed"]
    judged = judge(frame)
    pair = entry(judged, "bits_per_byte", "cegm", "adamw")
    assert (pair["n"], pair["effect"], pair["word"]) == (0, None, "no evidence")
    assert len(judged["failed"]) == 3
    assert entry(judged, "equal_seconds", "muon", "adamw")["effect"] is None  # nobody's time to be equal to


def test_nothing_finished_at_all() -> None:
    frame = results()[["id", "method", "seed", "role"]].assign(status="failed", error="killed", attempts=2)
    judged = judge(frame)
    assert judged["runs"] == {"planned": 9, "finished": 0}
    assert judged["statement"].startswith("Nothing can be concluded")
    assert (judged["survival"], judged["no_loss"], judged["cost_per_correct"]) == (None, [], {})


def test_equal_seconds_use_their_own_runs_or_the_shared_one() -> None:
    frame = results()
    frame.loc[frame["method"] == "adamw", "median_step_seconds"] = 0.08
    longer = frame[frame["method"] == "adamw"].assign(role="equal_seconds", batch_hash="longer")
    longer["bits_per_byte"] -= 0.3
    judged = judge(pd.concat([frame, longer], ignore_index=True))
    assert entry(judged, "equal_seconds", "cegm", "adamw")["word"] == "worse"
    assert entry(judged, "bits_per_byte", "cegm", "adamw")["word"] == "better"
    assert entry(judged, "equal_seconds", "cegm", "muon")["effect"] == pytest.approx(
        entry(judged, "bits_per_byte", "cegm", "muon")["effect"]
    )
    assert judged["refused"] == []


def test_equal_seconds_without_runs_of_their_own_are_not_measured() -> None:
    frame = results()
    frame.loc[frame["method"] == "adamw", "median_step_seconds"] = 0.08
    assert entry(judge(frame), "equal_seconds", "cegm", "adamw")["effect"] is None


def test_steps_to_target_keep_the_misses() -> None:
    frame = results(3, {"adamw": 0.0, "cegm": 0.5}, noise=0.0)
    frame.loc[frame["method"] == "adamw", "final_loss"] = [2.0, 2.1, 1.9]
    curve = {"adamw0": 2.0, "adamw1": 2.1, "adamw2": 1.9, "cegm0": 1.5, "cegm1": 1.5, "cegm2": 1.5}
    rows = [
        (run, step, 2 * step, step / 10, 4.0 - (4.0 - last) * step / 200, 0.0)
        for run, last in curve.items()
        for step in (0, 100, 200)
    ]
    judged = judge(frame, curves=pd.DataFrame(rows, columns=EMPTY_CURVES.columns))
    assert judged["target_loss"] == pytest.approx(2.0)
    summary = next(one for one in judged["measures"] if one["name"] == "steps_to_target")["methods"]
    assert summary["adamw"] == {"mean": None, "values": {"0": 200.0, "1": None, "2": 200.0}}
    assert summary["cegm"]["mean"] == 200.0
    assert entry(judged, "steps_to_target", "cegm", "adamw")["effect"] == 0.0
    curves = judged["survival"]["methods"]
    assert curves["adamw"] == {"curve": [[0, 0], [200, pytest.approx(2 / 3)]], "median": 200, "reached": 2, "runs": 3}
    assert curves["cegm"] == {"curve": [[0, 0], [200, 1]], "median": 200, "reached": 3, "runs": 3}


def test_what_stands_beside_the_words() -> None:
    items = axis_items(3, {"adamw": 0.4, "cegm": 0.9})
    frame = results(3, {"adamw": 0.0, "cegm": 0.0}, noise=1e-4)
    judged = judge(frame, items)
    assert judged["survival"] is None, "there are no curves"
    assert judged["cost_per_correct"] == {}, "the axis was not examined"
    assert [(line["pair"], line["no_loss"]) for line in judged["no_loss"]] == [(["cegm", "adamw"], True)]
    tests = entry(judged, "ambiguity", "cegm", "adamw")["mcnemar"]
    assert [test["seed"] for test in tests] == [0, 1, 2]
    scores = items[(items["axis"] == "ambiguity") & (items["seed"] == 1)].pivot(
        index=["item"], columns="method", values="score"
    )
    assert tests[1]["first_only"] == int((scores["cegm"] > scores["adamw"]).sum())
    assert tests[1]["second_only"] == int((scores["cegm"] < scores["adamw"]).sum())
    assert entry(judged, "domains", "cegm", "adamw")["mcnemar"] == [], "bits are not right or wrong"
    assert entry(judged, "retention", "cegm", "adamw")["mcnemar"] == [], "nobody was asked"
    assert "mcnemar" not in entry(judged, "bits_per_byte", "cegm", "adamw")


def test_a_refused_seed_is_left_out_of_levels_and_of_no_loss() -> None:
    frame = results(2, {"adamw": 0.0, "cegm": 0.0})
    frame.loc[(frame["method"] == "cegm") & (frame["seed"] == 0), "initial_hash"] = "other"
    judged = judge(frame, axis_items(2, {"adamw": 0.4, "cegm": 0.9}))
    assert judged["no_loss"] == []
    difference = judged["axes"]["ambiguity"][0]["differences"][0]
    assert (difference["low"], difference["high"]) == (None, None)


def test_retention_pairs_items_and_turns_the_direction() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(3):
        for level in (512, 1024):
            for item in range(60):
                for method, chance in (("adamw", 0.3), ("cegm", 0.9)):
                    correct = int(rng.random() < chance)
                    rows.append((method, seed, "main", f"{level}-{item}", f"c{item % 20}", level, correct))
    items = pd.DataFrame(rows, columns=["method", "seed", "role", "item", "cluster", "level", "score"])
    items = items.assign(axis="retention", subset="", chance=0.25)
    judged = judge(results(3, {"adamw": 0.0, "cegm": 0.0}), items)
    pair = entry(judged, "retention", "cegm", "adamw")
    assert pair["word"] == "better"
    by_hand = items.groupby(["method", "seed", "level"])["score"].mean().groupby("method").mean()
    assert pair["effect"] == pytest.approx(by_hand["cegm"] - by_hand["adamw"])


def axis_items(seeds: int, right: dict[str, float]) -> pd.DataFrame:
    """Items of two axes: one with levels, one with a subset that is exploratory and goes the other way."""
    rng = np.random.default_rng(1)
    rows = []
    for seed, (method, chance), item in itertools.product(range(seeds), right.items(), range(80)):
        own = {"method": method, "seed": seed, "role": "main", "item": str(item), "cluster": str(item), "chance": 0.5}
        rows.append(
            {**own, "axis": "ambiguity", "subset": "", "level": item % 4, "score": float(rng.random() < chance)}
        )
        for subset, bits in (("chat", 3 - chance), ("home after chat", 3 + chance)):
            rows.append({**own, "axis": "domains", "subset": subset, "level": 0, "score": bits, "chance": math.nan})
    return pd.DataFrame(rows)


def test_every_examined_axis_is_a_primary_measure_in_its_own_direction() -> None:
    judged = judge(results(8, {"adamw": 0.0, "cegm": 0.0}), axis_items(8, {"adamw": 0.4, "cegm": 0.9}))
    names = [one["name"] for one in judged["measures"] if one["family"] == "primary"]
    assert names == ["bits_per_byte", "retention", "ambiguity", "domains"]
    assert entry(judged, "ambiguity", "cegm", "adamw")["word"] == "better"
    assert entry(judged, "ambiguity", "cegm", "adamw")["effect"] == pytest.approx(0.5, abs=0.1)
    fewer_bits = entry(judged, "domains", "cegm", "adamw")
    assert fewer_bits["word"] == "better"
    assert fewer_bits["effect"] == pytest.approx(-0.5), "the exploratory subset must not count"


def test_levels_of_an_axis_are_listed_with_chance_and_spread() -> None:
    found = judge(results(3, {"adamw": 0.0, "cegm": 0.0}), axis_items(3, {"adamw": 0.4, "cegm": 0.9}))["axes"]
    assert [cell["level"] for cell in found["ambiguity"]] == [0, 1, 2, 3]
    cell = found["ambiguity"][0]
    assert (cell["chance"], cell["items"]) == (0.5, 20)
    assert cell["methods"]["cegm"]["low"] <= cell["methods"]["cegm"]["mean"] <= cell["methods"]["cegm"]["high"]
    by_hand = cell["methods"]["cegm"]["mean"] - cell["methods"]["adamw"]["mean"]
    (difference,) = cell["differences"]
    assert difference["mean"] == pytest.approx(by_hand)
    assert difference["low"] < by_hand < difference["high"]
    assert {cell["subset"]: cell["chance"] for cell in found["domains"]} == {"chat": None, "home after chat": None}


def test_an_axis_that_one_seed_lacks_is_not_judged() -> None:
    items = axis_items(3, {"adamw": 0.4, "cegm": 0.9})
    items = items[~((items["method"] == "cegm") & (items["seed"] == 2) & (items["axis"] == "ambiguity"))]
    judged = judge(results(3, {"adamw": 0.0, "cegm": 0.0}), items)
    assert entry(judged, "ambiguity", "cegm", "adamw")["effect"] is None
    assert entry(judged, "domains", "cegm", "adamw")["effect"] is not None


def test_exact_counts_need_no_test_and_equal_ones_decide_nothing() -> None:
    judged = judge(results())
    pair = entry(judged, "optimizer_state", "cegm", "adamw")
    assert (pair["effect"], pair["p"], pair["word"]) == (pytest.approx(0.5), None, "better")
    assert entry(judged, "optimizer_state", "cegm", "muon")["word"] == "no evidence"


def test_one_seed_concludes_nothing() -> None:
    judged = judge(results(1))
    assert entry(judged, "bits_per_byte", "cegm", "adamw")["word"] == "no evidence"
    assert judged["statement"].startswith("Nothing can be concluded")


def test_the_file_is_plain_json_and_comes_from_the_folder(tmp_path: Path) -> None:
    frame = results()
    frame.to_parquet(tmp_path / "results.parquet")
    pd.DataFrame([]).to_parquet(tmp_path / "items.parquet")
    run = tmp_path / "runs" / "cegm-seed0-cegm0"
    run.mkdir(parents=True)
    line = {"kind": "validation", "step": 50, "tokens": 1, "seconds": 1.0, "loss": 0.1, "bits_per_byte": 0.1}
    (run / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 1}) + "\n" + json.dumps(line) + "\n")
    written = json.loads(verdict.write_verdict(tmp_path).read_text())
    summary = next(one for one in written["measures"] if one["name"] == "steps_to_target")["methods"]
    assert summary["cegm"]["values"]["0"] == 50.0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "items.parquet",
        "results.parquet",
        "runs",
        "verdict.json",
    ]


def test_a_folder_without_results_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no results\.parquet"):
        verdict.write_verdict(tmp_path)

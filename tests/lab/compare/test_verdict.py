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

from cegm.lab.compare import seed_statistics, verdict

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


def lost(frame: pd.DataFrame, method: str, seeds: range) -> pd.DataFrame:
    """The frame with failed runs of a method on these seeds, as they are recorded: without numbers and hashes."""
    failed = (frame["method"] == method) & frame["seed"].isin(seeds)
    frame.loc[failed, ["status", "error"]] = ["failed", "loss is NaN at step 7"]
    frame.loc[failed, ["bits_per_byte", "final_loss", "initial_hash", "batch_hash"]] = [math.nan, math.nan, None, None]
    return frame


def test_five_seeds_are_a_screening_whose_words_follow_the_intervals() -> None:
    judged = judge(results(5))
    pair = entry(judged, "bits_per_byte", "cegm", "adamw")
    assert pair["word"] == "better"
    assert pair["effect"] == pytest.approx(-0.15, abs=0.02)
    assert pair["interval"][1] < 0
    assert (pair["p"], pair["n"]) == (2 / 2**5, 5)
    assert judged["screening"] is pair["screening"] is True
    assert "screening with 5 paired seeds, not a claim" in judged["statement"]
    assert "below p = 0.062" in judged["statement"]
    assert "Below 5 seeds" not in judged["statement"]


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_fewer_than_five_paired_seeds_are_shown_one_by_one(seeds: int) -> None:
    """The words still follow the interval, which is not shown: that of two seeds reaches from nothing to everything."""
    frame = results(seeds)
    judged = judge(frame)
    for measure in judged["measures"]:
        assert all(pair["interval"] is None for pair in measure["pairs"])
        assert all(pair["smallest_detectable"] is None for pair in measure["pairs"])
    pair = entry(judged, "bits_per_byte", "cegm", "adamw")
    losses = frame.pivot(index="seed", columns="method", values="bits_per_byte")
    assert pair["points"] == pytest.approx((losses["cegm"] - losses["adamw"]).tolist())
    assert pair["word"] == "better"
    ratio = entry(judged, "memory", "cegm", "adamw")
    assert (ratio["effect"], ratio["points"]) == (1.0, [1.0] * seeds)
    assert "Below 5 seeds an interval is too wide to tell much" in judged["statement"]
    assert f"screening with {seeds} paired seeds, not a claim" in judged["statement"]


def test_points_belong_to_the_seeds_that_could_be_paired() -> None:
    frame = lost(results(5), "cegm", range(1, 3))
    pair = entry(judge(frame), "bits_per_byte", "cegm", "adamw")
    losses = frame.pivot(index="seed", columns="method", values="bits_per_byte").loc[[0, 3, 4]]
    assert pair["seeds"] == [0, 3, 4]
    assert pair["points"] == pytest.approx((losses["cegm"] - losses["adamw"]).tolist())


def test_eight_seeds_need_holm_and_reach_it() -> None:
    judged = judge(results(8))
    pair = entry(judged, "bits_per_byte", "cegm", "muon")
    assert pair["p"] == pytest.approx(2 / 2**8)
    assert pair["p_holm"] == pytest.approx(3 * 2 / 2**8)  # three pairs; retention was not measured
    assert pair["word"] == "better"
    assert judged["screening"] is False


def test_losing_a_seed_does_not_make_it_easier_to_win() -> None:
    """Seven seeds of a claim are judged by the rule of the claim, but they are none: with three pairs they reach .047."""
    frame = results(8, {"adamw": 0.0, "muon": 0.004, "cegm": 0.006}, noise=0.001)
    frame.loc[(frame["method"] == "muon") & (frame["seed"] == 2), "initial_hash"] = "other"
    judged = judge(frame)
    pair = entry(judged, "bits_per_byte", "cegm", "muon")
    assert pair["n"] == 7
    assert pair["interval"][1] < 0
    assert pair["p_holm"] is not None
    assert (pair["word"] == "better") == (pair["p_holm"] <= 0.05)
    assert judged["screening"] is True
    assert judged["statement"].startswith(
        "A screening, not a claim, which takes at least 8 paired seeds: 7 of 8 planned seeds"
    )
    assert "after Holm" in judged["statement"]
    assert pair["screening"] is True
    assert entry(judged, "bits_per_byte", "cegm", "adamw")["screening"] is False, "this pair lost nothing"


@pytest.mark.parametrize("paired", range(2, 10))
def test_sentence_and_status_follow_the_paired_seeds_whatever_was_planned(paired: int) -> None:
    for planned in {paired, 8, 9, 12} - set(range(paired)):
        judged = judge(lost(results(planned, {"adamw": 0.0, "cegm": 0.1}), "adamw", range(paired, planned)))
        assert judged["screening"] is (paired < 8)
        assert judged["statement"].startswith("A screening") is (paired < 8)
        assert [pair["screening"] for pair in judged["measures"][0]["pairs"]] == [paired < 8]
        assert ("after Holm" in judged["statement"]) is (planned >= 8)


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
    monkeypatch.setattr(seed_statistics, "RESAMPLES", 200)
    monkeypatch.setattr(seed_statistics, "smallest_detectable_difference", lambda *_: 0.0)  # slow, and not at stake
    rng, alarms = np.random.default_rng(7), []
    for _ in range(300):
        values = rng.normal(size=(3, seeds)).tolist()
        effects = [seed_statistics.paired_difference(*pair) for pair in itertools.combinations(values, 2)]
        entries = [
            {
                "pair": ["a", "b"],
                "n": seeds,
                "seeds": [],
                "failed": [],
                "effect": e.estimate,
                "beyond_chance": e.beyond_chance,
            }
            for e in effects
        ]
        for one, adjusted in zip(entries, seed_statistics.holm([e.p for e in effects]), strict=True):
            one["p_holm"] = adjusted
        words = [verdict.word(verdict.MEASURES[0], one, seeds >= 8) != "no evidence" for one in entries]
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
    judged = judge(lost(results(4), "cegm", range(3, 4)))
    assert [(line["method"], line["seed"], line["error"]) for line in judged["failed"]] == [
        ("cegm", 3, "loss is NaN at step 7")
    ]
    pair = entry(judged, "bits_per_byte", "cegm", "adamw")
    assert pair["failed"] == [{"method": "cegm", "seed": 3}]
    assert pair["beyond_chance"], "the finished seeds alone would say better"
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


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("fallen", ["cegm", "muon", "adamw"])
def test_a_method_that_failed_on_every_seed_is_named_and_the_others_are_judged(fallen: str, seeds: int) -> None:
    judged = judge(lost(results(seeds), fallen, range(seeds)))
    others = [method for method in ("cegm", "muon", "adamw") if method != fallen]
    assert judged["failed_methods"] == [fallen]
    assert f"Failed on every seed, and so not judged: {fallen}." in judged["statement"]
    assert "Nothing can be concluded" not in judged["statement"]
    assert judged["screening"] is (seeds < 8)
    assert entry(judged, "bits_per_byte", *others)["word"] == "better"
    assert {pair["word"] for pair in judged["measures"][0]["pairs"] if fallen in pair["pair"]} == {"no evidence"}
    alone = judge(results(seeds)[lambda frame: frame["method"] != fallen])
    assert judged["statement"].startswith(alone["statement"]), "the others are judged as without it"


def test_one_seed_that_is_left_of_a_method_silences_nobody_else() -> None:
    judged = judge(lost(results(8), "muon", range(1, 8)))
    assert judged["failed_methods"] == []
    assert judged["screening"] is False
    assert judged["statement"].startswith("8 of 8 planned seeds")
    assert "no word: cegm against muon, muon against adamw." in judged["statement"]
    assert entry(judged, "bits_per_byte", "cegm", "adamw")["word"] == "better"


def test_methods_come_in_the_one_order_whatever_was_asked_first() -> None:
    judged = judge(results(3, {"muon": 0.0, "normuon": 0.1, "soap": 0.2, "cegm": 0.3}))
    assert judged["methods"] == ["cegm", "normuon", "soap", "muon"]
    assert [pair["pair"] for pair in judged["measures"][0]["pairs"]][2] == ["cegm", "muon"]


def test_equal_seconds_that_were_switched_off_are_not_measured() -> None:
    """Steps that happen to take as long would make a run at equal steps one at equal seconds."""
    frame = results()
    on = verdict.judge(frame, pd.DataFrame(), EMPTY_CURVES)
    off = verdict.judge(frame, pd.DataFrame(), EMPTY_CURVES, equal_seconds=False)
    assert entry(on, "equal_seconds", "cegm", "muon")["effect"] is not None
    measure = next(one for one in off["measures"] if one["name"] == "equal_seconds")
    assert measure["methods"] == {}
    assert all((pair["effect"], pair["n"], pair["points"]) == (None, 0, []) for pair in measure["pairs"])
    rest = [[one for one in judged["measures"] if one["name"] != "equal_seconds"] for judged in (on, off)]
    assert rest[0] == rest[1]


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
    found = judge(results(5, {"adamw": 0.0, "cegm": 0.0}), axis_items(5, {"adamw": 0.4, "cegm": 0.9}))["axes"]
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


def folder_of_results(path: Path) -> Path:
    """A folder that can be judged: results, no items, one run with a validation line and a line that was cut off."""
    results(2).to_parquet(path / "results.parquet")
    pd.DataFrame([]).to_parquet(path / "items.parquet")
    run = path / "runs" / "cegm-seed0-cegm0"
    run.mkdir(parents=True)
    line = {"kind": "validation", "step": 50, "tokens": 1, "seconds": 1.0, "loss": 0.1, "bits_per_byte": 0.1}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line)[:40])
    return path


def test_a_run_that_died_in_the_middle_of_a_line_is_judged_by_those_before(tmp_path: Path) -> None:
    curves = verdict.read_curves(folder_of_results(tmp_path))
    assert curves["step"].tolist() == [50]


@pytest.mark.parametrize("name", ["results.parquet", "items.parquet", "runs/cegm-seed0-cegm0/metrics.jsonl"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    file = folder_of_results(tmp_path) / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] + b"\n")
    with pytest.raises(ValueError, match=name) as error:
        verdict.write_verdict(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "verdict.json").exists()


def test_a_folder_without_results_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no results\.parquet"):
        verdict.write_verdict(tmp_path)

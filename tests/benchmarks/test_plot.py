import json
import math

import pandas as pd
import pytest

pytest.importorskip("altair")

import plot


def logs(folder, factors, budgets=(50, 100, 200), seeds=3):
    """Final losses that fall with the logarithm of steps; a method with factor k needs 1/k of the steps of AdamW."""
    paths = []
    for budget in budgets:
        lines = [{"steps": budget}]
        for seed in range(seeds):
            for method, factor in factors.items():
                loss = 3 - 0.3 * math.log(budget * factor) + 0.01 * seed
                pace = 0.1 if method == "adamw" else 0.12
                half = {"method": method, "seed": seed, "step": budget // 2, "validation": 0.0, "seconds": 1.0}
                lines += [half, {**half, "step": budget, "validation": loss, "seconds": budget * pace}]
        paths.append(folder / f"{budget}.jsonl")
        paths[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def test_ratio_of_steps_and_seconds_is_the_factor(tmp_path):
    runs = plot.read(logs(tmp_path, {"adamw": 1.0, "muon": 2.0, "cegm": 2.5}))
    found = plot.needed(runs).groupby("method")[["steps", "seconds"]].mean()
    assert found.loc["adamw", "steps"] == pytest.approx(200)
    assert found.loc["cegm", "steps"] == pytest.approx(80)
    assert found.loc["cegm", "seconds"] == pytest.approx(80 * 0.12)
    table = plot.summary(runs).set_index("method")
    assert list(table.index) == ["CEGM", "Muon", "AdamW"]
    assert table.loc["Muon", "CEGM's steps / its"].startswith("0.80")
    assert table.loc["CEGM", "CEGM's steps / its"] == ""
    # Losses fall with the logarithm of steps, so a factor of .8 at AdamW's loss is one of .8 anywhere.
    assert table.loc["Muon", "CEGM's steps to its loss"].startswith("0.80")
    assert table.loc["AdamW", "CEGM's seconds to its loss"].startswith("0.48")
    assert plot.overtaking(runs[runs["budget"] == 200], "muon", "steps").startswith("≤ 1.00")
    slower = runs.assign(loss=runs["loss"] + (runs["method"] == "cegm"))
    assert plot.overtaking(slower, "muon", "steps") == "3 missed"
    assert table.loc["Muon", "CEGM's - it"].startswith(f"{-0.3 * math.log(1.25):+.4f}")
    assert table.loc["CEGM", "seconds / AdamW's"].startswith("0.48")


def test_results_of_a_comparison_are_read_like_logs(tmp_path):
    runs = plot.read(logs(tmp_path, {"adamw": 1.0, "muon": 2.0}))
    whole = runs.assign(seconds=1.0, role="main", status="finished")
    others = [whole.assign(role="equal_seconds", loss=0.0), whole.assign(status="failed", loss=None)]
    table = pd.concat([whole, *others]).rename(columns={"budget": "steps", "loss": "final_loss"})
    table.to_csv(tmp_path / "results.csv", index=False)
    again = plot.read([tmp_path / "results.csv"])
    pd.testing.assert_frame_equal(again.drop(columns="pace"), runs.drop(columns="pace"))
    found = plot.summary(again)
    assert "seconds / AdamW's" not in found  # such runs took no turns
    assert "steps / AdamW's" in found
    assert "CEGM's - it" not in found  # no run of CEGM


def test_a_log_in_which_no_seed_has_ended_yet_is_passed_over(tmp_path):
    paths = logs(tmp_path, {"adamw": 1.0, "muon": 2.0})
    begun = tmp_path / "begun.jsonl"
    begun.write_text(json.dumps({"steps": 400}) + "\n")
    assert len(plot.needed(plot.read([*paths, begun]))) == 6


def test_a_miss_is_a_miss_and_a_bound_is_marked(tmp_path):
    runs = plot.read(logs(tmp_path, {"adamw": 1.0, "muon": 0.5, "cegm": 8.0}))
    assert plot.against(plot.needed(runs), "steps", "muon", "adamw") == "3 missed"
    assert plot.against(plot.needed(runs), "steps", "cegm", "adamw").startswith("≤ 0.25")
    assert plot.against(plot.needed(runs), "steps", "adamw", "cegm") == "needs shorter runs"


def test_pictures_and_table_are_written(tmp_path, monkeypatch, capsys):
    paths = logs(tmp_path, {"adamw": 1.0, "muon": 2.0})
    monkeypatch.setattr("sys.argv", ["plot.py", *map(str, paths), "--output", str(tmp_path / "p.svg")])
    plot.main()
    assert "a screening, not a claim" in capsys.readouterr().out
    assert (tmp_path / "p.svg").read_text().startswith("<svg")
    assert (tmp_path / "p.csv").read_text().startswith("method,")


def test_a_log_without_a_finished_run_says_so(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"steps": 5}) + "\n")
    with pytest.raises(SystemExit, match="no finished run"):
        plot.read([path])

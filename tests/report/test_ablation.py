"""The report of an ablation, against effects whose answers are known by hand."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cegm import cli, report
from cegm.compare.ablation import AblationConfig
from cegm.compare.effects import write_effects
from cegm.compare.plan import write_plan
from cegm.report import ablation as ablation_report
from cegm.report import effect_chart, effect_words
from cegm.report.folder import read_ablation
from pages import Page

HOSTILE = "</script><script>alert('run')</script><img src=x onerror=alert(1)>"
CHANGES = """
- part: controls
  question: Does context do anything at all?
  changes: [{gradient_power: 0}, {scores: random}]
- part: memory
  question: How fresh must a context be?
  changes: [{refresh_every: 1}, {refresh_every: 64}]
"""
BASE = (1.10, 1.20, 1.30, 1.40, 1.50)
NOTHING = (0.01, -0.01, 0.02, -0.02, 0.00)
"""Differences by seed whose mean is exactly zero; interval 0 +- 2.776 * 0.01581 / sqrt(5) = 0.0196."""

Differences = dict[str, tuple[float | None, ...]]


def make_ablation(
    folder: Path,
    differences: Differences,
    seeds: int = 5,
    changes: str = CHANGES,
    costs: dict[str, Any] | None = None,
    error: str = "loss is NaN at step 12",
) -> Path:
    """An ablation folder with these differences to the base by name of the change and seed; None failed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "changes.yaml").write_text(changes, encoding="utf-8")
    config = AblationConfig(output_dir=str(folder), changes=str(folder / "changes.yaml"), seeds=str(seeds))
    results: dict[str, dict[str, Any]] = {}
    for arm in config.arms:
        for place, seed in enumerate(config.seed_list):
            usual = (0.0,) * 8 if arm.name == "base" else (NOTHING * 2)
            difference = differences.get(arm.name, usual)[place]
            run = config.planned(arm, seed)
            results[run.id] = (
                {"status": "failed", "error": error}
                if difference is None
                else {
                    "status": "finished",
                    "final_loss": (BASE + BASE)[place] + difference,
                    "optimizer_state_bytes": 800.0,
                    "parameters": 100,
                }
            )
    if costs is not None:
        (folder / "costs.json").write_text(json.dumps(costs), encoding="utf-8")
    write_plan(folder, config.plan())
    write_effects(folder, config, results)
    return folder


def shifted(mean: float) -> tuple[float, ...]:
    """Differences around a mean with the spread of `NOTHING`."""
    return tuple(mean + one for one in NOTHING)


def plain(text: str) -> str:
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{MULTIPLICATION SIGN}", "x")


def ratio(estimate: float) -> dict[str, Any]:
    return {"estimate": estimate, "low": estimate - 0.01, "high": estimate + 0.01, "p": 0.1, "seeds": 4}


def test_without_any_effect_every_sentence_says_so(tmp_path: Path) -> None:
    page = Page(report.write(make_ablation(tmp_path / "none", {})))
    assert (
        "4 changes tried on 5 seeds: none better than the base, none worse, 4 without evidence of a difference. "
        "A screening, not a claim." in page.words
    )
    assert "No change of this part moved the loss beyond what 5 seeds can tell (largest effect of" in page.words
    assert "Base is better than none of 2 controls and worse than none; there is no evidence" in page.words
    assert "No evidence that base differs from gradient_power=0 (p = q = 0, no context)" in page.words
    assert "negative = lower loss than base = better" in page.words
    assert "not tuned again for each change" in page.words
    assert "must be confirmed on other seeds" in page.words
    assert "No run failed." in page.words
    assert "The cost of a step was not measured." in page.words


def test_one_better_and_one_worse_are_named_with_their_numbers(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "found", {"refresh_every=1": shifted(-0.1), "scores=random": shifted(0.05)})
    content = read_ablation(folder)
    assert effect_words.headline(content).startswith("4 changes tried on 5 seeds: 1 better than the base, 1 worse, 2 w")
    memory, controls = ([arm for arm in content.arms if arm["part"] == part] for part in ("memory", "controls"))
    # t(0.975, 4) = 2.7764, spread sqrt(0.00025), so half the interval is 2.7764 * 0.015811 / sqrt(5) = 0.0196
    assert plain(effect_words.answer(memory)).startswith(
        "Better: refresh_every=1 -0.1000 (-0.1196 to -0.0804); no evidence: refresh_every=64 (effect 0.0000;"
    )
    assert effect_words.answer(controls).startswith("Worse: scores=random +0.0500 (+0.0304 to +0.0696); no evidence:")
    assert effect_words.control_answer(controls) == (
        "Base is better than 1 of 2 controls and worse than none; there is no evidence of a difference to 1."
    )
    told = plain(" ".join(effect_words.controls(content)))
    assert (
        "Base ends 0.0500 below scores=random (random scores of tokens): better "
        "(base minus control, 95 % interval -0.0696 to -0.0304, 5 seeds)." in told
    )


def test_eight_seeds_are_no_screening_and_chance_is_counted(tmp_path: Path) -> None:
    eight = tuple(-0.1 + one for one in (*NOTHING, 0.01, -0.01, 0.0))
    content = read_ablation(make_ablation(tmp_path / "eight", {"refresh_every=1": eight}, seeds=8))
    assert "screening" not in effect_words.headline(content)
    told = " ".join(effect_words.warnings(content))
    assert "of 4 changes that did nothing, 0.2 would be called better or worse" in told
    assert "1 of them stands after Holm's correction" in told  # 4 * 2 / 2**8 = 0.031


def test_with_five_seeds_no_p_can_survive_the_correction(tmp_path: Path) -> None:
    told = " ".join(effect_words.warnings(read_ablation(make_ablation(tmp_path / "five", {}))))
    assert "no p is below 0.05, and with 5 seeds none could be" in told


def test_failed_runs_are_listed_and_their_seeds_left_out(tmp_path: Path) -> None:
    some = (-0.1, -0.1, None, -0.11, -0.09)
    folder = make_ablation(
        tmp_path / "failed", {"refresh_every=1": some, "scores=random": (None,) * 5}, error="loss is NaN at step 12"
    )
    content = read_ablation(folder)
    page = Page(report.write(folder))
    assert "none better than the base" in effect_words.headline(content)  # a failure is never better
    assert effect_words.headline(content).endswith("1 not compared. A screening, not a claim.")
    assert page.words.count("loss is NaN at step 12") == 6
    assert "6 runs failed" in page.words
    assert "Base was not compared with scores=random" in page.words
    assert content.arms[-1]["name"] == "scores=random"  # after those with an effect
    assert len(effect_chart.seed_rows(content)) == 4 + 5 + 5
    row = next(row for row in ablation_report.rows(content) if row["change"] == "refresh_every=1")
    assert row["failed"] == "2"
    table = report.table(folder)
    assert "failed: refresh_every=1, seed 2: loss is NaN at step 12" in table
    assert "not compared" in table


def test_a_failed_base_leaves_nothing_to_compare_with(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "base", {"base": (None,) * 5})
    page = Page(report.write(folder))
    assert "4 changes tried on 5 seeds: none better than the base, none worse" in page.words
    assert "4 not compared" in page.words
    assert "none finished on a seed on which the base finished" in page.words
    assert "no seed finished" in page.words
    report.export_picture(folder, tmp_path / "picture.svg")
    assert report.table(folder).count("not compared") == 4 + 1


def test_one_seed_tells_nothing(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "one", {"refresh_every=1": (-0.5,)}, seeds=1)
    page = Page(report.write(folder))
    assert "4 changes tried on 1 seed: one seed has no spread, so none can be called better or worse" in page.words
    assert "One seed cannot tell (refresh_every=1 -0.5000, refresh_every=64 +0.0100)." in plain(page.words)
    assert "on one seed, which cannot tell" in page.words
    assert "would be called better" not in page.words
    report.export_picture(folder, tmp_path / "picture.svg")
    assert "[" not in report.table(folder).splitlines()[1]


def test_three_seeds_are_shown_one_by_one(tmp_path: Path) -> None:
    near = (-0.1, -0.1001, -0.0999)
    folder = make_ablation(tmp_path / "three", {"refresh_every=1": near, "scores=random": (0.2, -0.1, 0.1)}, seeds=3)
    content, page = read_ablation(folder), Page(report.write(folder))
    memory, controls = ([arm for arm in content.arms if arm["part"] == part] for part in ("memory", "controls"))
    assert plain(effect_words.answer(memory)) == (
        "Better: refresh_every=1 -0.1000 (by seed -0.1000, -0.1001, -0.0999); no evidence: refresh_every=64 "
        "(effect +0.0067; by seed +0.0100, -0.0100, +0.0200)."
    )
    told = plain(" ".join(effect_words.controls(content)))
    assert "it ends 0.0667 below it (base minus control, by seed -0.2000, +0.1000, -0.1000)." in told
    assert effect_words.control_answer(controls).startswith("Base is better than none of 2 controls")
    assert [row["smallest"] for row in ablation_report.rows(content)] == ["\N{EN DASH}"] * 4
    assert " to " not in " ".join(row["interval"] for row in ablation_report.rows(content))
    row = next(line for line in report.table(folder).splitlines() if line.startswith("refresh_every=1 "))
    assert "-0.1000, -0.1001, -0.0999" in plain(row)
    assert "-0.1000, -0.1001, -0.0999" in plain(page.words)
    bars = [one for one in effect_chart.effect_rows(content) if one["low"] is not None]
    assert bars == []
    assert len(effect_chart.seed_rows(content)) == 4 * 3
    report.export_picture(folder, tmp_path / "picture.svg")


def test_costs_of_too_few_blocks_for_an_interval_are_shown_one_by_one(tmp_path: Path) -> None:
    short = {**ratio(1.5), "low": None, "high": None, "points": [1.4, 1.6]}
    folder = make_ablation(tmp_path / "costs", {}, costs={"how": "timed", "ratios": {"refresh_every=1": short}})
    page = Page(report.write(folder))
    assert "1.500 x 1.400, 1.600" in re.sub(r"\s+", " ", plain(page.words))
    drawn = json.dumps(list(page.charts.values()))
    assert '"block": 1.4' in drawn
    assert '"block": 1.6' in drawn


def test_costs_stand_in_page_and_table(tmp_path: Path) -> None:
    costs = {"how": "whole steps, interleaved", "ratios": {"refresh_every=1": ratio(1.5)}}
    folder = make_ablation(tmp_path / "costs", {}, costs=costs)
    page = Page(report.write(folder))
    assert "Cost of a step: whole steps, interleaved." in page.words
    assert "1.500 x 1.490 to 1.510" in re.sub(r"\s+", " ", plain(page.words))
    line = next(line for line in report.table(folder).splitlines() if line.startswith("refresh_every=1 "))
    assert line.split()[-2:] == ["1.500", "8.00"]


def test_an_equal_time_control_is_explained(tmp_path: Path) -> None:
    changes = CHANGES.replace("{scores: random}", "{gradient_power: 0, max_steps: 320}")
    told = effect_words.controls(read_ablation(make_ablation(tmp_path / "equal", {}, changes=changes)))
    assert sum("as many steps as fit into the base's time" in one for one in told) == 1


def test_rows_are_sorted_by_effect_everywhere(tmp_path: Path) -> None:
    folder = make_ablation(
        tmp_path / "sorted",
        {
            "gradient_power=0": shifted(0.3),
            "scores=random": shifted(-0.2),
            "refresh_every=1": shifted(0.1),
            "refresh_every=64": shifted(0.0),
        },
    )
    expected = ["scores=random", "refresh_every=64", "refresh_every=1", "gradient_power=0"]
    content = read_ablation(folder)
    assert [row["change"] for row in ablation_report.rows(content)] == expected
    assert [row["change"] for row in effect_chart.effect_rows(content)] == expected
    assert [line.split()[0] for line in report.table(folder).splitlines()[1:5]] == expected
    text = Page(report.write(folder)).text.split('id="table"')[1]
    assert sorted(expected, key=text.index) == expected


def test_the_plot_shows_every_seed_and_cuts_only_disasters(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "far", {"gradient_power=0": shifted(4.0), "refresh_every=1": shifted(-0.03)})
    content = read_ablation(folder)
    seeds = effect_chart.seed_rows(content)
    assert len(seeds) == 20
    first = [one["difference"] for one in seeds if one["change"] == "refresh_every=1"]
    assert first == pytest.approx(shifted(-0.03))
    low, high = effect_chart.domain(effect_chart.effect_rows(content), seeds)
    assert low < -0.05  # every mark of the others
    assert 0.02 < high < 0.2  # the disaster is beyond
    path = report.export_picture(folder, tmp_path / "picture.svg")
    assert "+4.0000 →" in path.read_text(encoding="utf-8")
    assert effect_chart.domain([], []) == (-1e-3, 1e-3)


def test_nothing_hostile_leaves_its_text(tmp_path: Path) -> None:
    changes = json.dumps(
        [
            {"part": HOSTILE, "question": HOSTILE, "changes": [{"data": HOSTILE}, {"data": "\x1b[31mred"}]},
        ]
    )
    folder = make_ablation(
        tmp_path / "hostile", {f"data={HOSTILE}": (None,) * 5}, changes=changes, error=HOSTILE + "\x1b[31m"
    )
    page = Page(report.write(folder))
    assert HOSTILE not in page.text.split("<script>")[0]
    assert not [tag for tag, attributes in page.tags if tag == "img" or "onerror" in attributes]
    assert "alert('run')" in page.words
    assert "\x1b" not in report.table(folder)


def test_the_page_is_small_offline_and_complete(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "whole", {})
    path = report.write(folder)
    page = Page(path)
    assert path.stat().st_size < 1_600_000
    assert {"verdict", "effects", "parts", "table", "failed"} <= page.ids()
    assert "default-src 'none'" in page.text
    assert not [tag for tag, attributes in page.tags if tag == "link" or (tag == "script" and "src" in attributes)]
    assert all("$schema" not in chart for chart in page.charts.values())


def test_the_terminal_table_is_aligned_and_narrow(tmp_path: Path) -> None:
    long = json.dumps([{"part": "p" * 60, "changes": [{"data": "d" * 200}, {"refresh_every": 1}]}])
    folder = make_ablation(tmp_path / "long", {"refresh_every=1": (1234.5, None, -0.1, 0.2, 0.3)}, changes=long)
    lines = report.table(folder).splitlines()
    assert " ".join(plain(lines[0]).split()) == "change part effect [low, high] or each seed word step x B/weight"
    assert len({len(line) for line in lines[:3]}) == 1
    assert max(map(len, lines)) <= 130
    assert lines[3] == ""
    assert lines[4].startswith("2 changes tried on 5 seeds:")
    for start in ("part", "word"):
        place = lines[0].index(start)
        assert all(line[place - 1] == " " and line[place] != " " for line in lines[1:3])


@pytest.mark.parametrize(("name", "start"), [("picture.svg", b"<svg"), ("picture.png", b"\x89PNG")])
def test_the_picture_is_written(tmp_path: Path, name: str, start: bytes) -> None:
    content = report.export_picture(make_ablation(tmp_path / "drawn", {}), tmp_path / name).read_bytes()
    assert content.startswith(start)
    assert name.endswith(".png") or b"refresh_every=64" in content


def test_another_ending_is_refused(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "ending", {})
    with pytest.raises(ValueError, match=r"end the name in \.svg or \.png"):
        report.export_picture(folder, tmp_path / "picture.gif")


def test_damaged_effects_are_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "effects.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"effects\.json is not JSON"):
        report.write(tmp_path)
    (tmp_path / "effects.json").write_text('{"arms": []}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"effects\.json lacks base, claim"):
        report.table(tmp_path)


def test_the_command_draws_the_page_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_ablation(tmp_path / "again", {})
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"report: {folder / 'report.html'}\n"


def test_a_comparison_is_still_one(comparison: Path) -> None:
    assert report.table(comparison).startswith("method")


def test_keeping_an_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, place = make_ablation(tmp_path / "kept", {}, costs={"how": "timed", "ratios": {}}), tmp_path / "place"
    pd.DataFrame([{"id": "a", "status": "finished"}]).to_parquet(folder / "results.parquet")
    pd.DataFrame([]).to_parquet(folder / "items.parquet")
    for name, text in (("run-a", '{"kind": "train", "loss": 1.0, "layers": {"x": 1}}\n'), ("run-b", None)):
        (folder / "runs" / name).mkdir(parents=True)
        if text:
            (folder / "runs" / name / "metrics.jsonl").write_text(text, encoding="utf-8")
    keep = Path(__file__).parents[2] / "benchmarks" / "keep.py"
    monkeypatch.setattr(sys, "argv", ["keep.py", str(folder), str(place)])
    runpy.run_path(str(keep), run_name="__main__")
    kept = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert kept == {
        "plan.jsonl",
        "effects.json",
        "costs.json",
        "results.csv",
        "metrics/run-a.jsonl",
        "picture.svg",
    }
    assert json.loads((place / "metrics" / "run-a.jsonl").read_text()) == {"kind": "train", "loss": 1.0}
    assert report.table(place) == report.table(folder)

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

from cegm.lab import cli, report
from cegm.lab.compare.ablation import AblationConfig
from cegm.lab.compare.plan import plan_main, write_plan
from cegm.lab.compare.verdict import write_verdict
from cegm.lab.report import changes as told
from cegm.lab.report import forest, sentences
from cegm.lab.report.judged import Judged, judged
from cegm.lab.report.runs import Folder, read
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
    ratios: dict[str, dict[str, Any]] | None = None,
    error: str = "loss is NaN at step 12",
) -> Path:
    """An ablation folder with these differences to the base by name of the change and seed; None failed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "changes.yaml").write_text(changes, encoding="utf-8")
    config = AblationConfig(output_dir=str(folder), changes=str(folder / "changes.yaml"), seeds=str(seeds)).comparison
    plan, rows = plan_main(config), []
    for run in plan:
        place = config.seed_list.index(run.seed)
        usual = (0.0,) * 8 if run.arm == "base" else (NOTHING * 2)
        difference = differences.get(run.arm, usual)[place]
        row = {"id": run.id, "method": run.arm, "seed": run.seed, "role": "main"}
        if difference is None:
            rows.append({**row, "status": "failed", "error": error, "attempts": 2})
        else:
            loss = (BASE + BASE)[place] + difference
            numbers = {"final_loss": loss, "bits_per_byte": loss, "median_step_seconds": 0.1, "memory_bytes": 1e9}
            sizes = {"optimizer_state_bytes": 800.0, "parameters": 100, "steps": 9, "tokens": 72, "attempts": 1}
            hashes = {"initial_hash": f"w{run.seed}", "batch_hash": f"b{run.seed}"}
            rows.append({**row, "status": "finished", "error": None, **numbers, **sizes, **hashes})
        (folder / "runs" / run.name).mkdir(parents=True)
        (folder / "runs" / run.name / "result.json").write_text(json.dumps(rows[-1]), encoding="utf-8")
    pd.DataFrame(rows).to_parquet(folder / "results.parquet")
    pd.DataFrame([]).to_parquet(folder / "items.parquet")
    write_plan(folder, plan)
    write_verdict(folder, False, config.parts)
    if ratios is not None:
        (folder / "overhead.json").write_text(json.dumps(overhead(ratios, plan[0].inputs)), encoding="utf-8")
    return folder


def overhead(ratios: dict[str, dict[str, Any]], inputs: dict[str, Any]) -> dict[str, Any]:
    """An `overhead.json` of changes with these ratios to the base."""
    own = {"seconds_per_step": 0.1, "tokens_per_second": 1e4, "peak_bytes": 2**26, "peak_ratio": 1.0}
    state = {"state_bytes": 800, "state_bytes_per_matrix_weight": 8.0}
    points = [
        {
            **{"id": name, "width": 64, "batch": 4, "length": 32, "parameters": 100},
            "methods": {n: {**own, **state, "ratio": r} for n, r in (("base", ratio(1.0)), (name, found))},
        }
        for name, found in ratios.items()
    ]
    facts = {"how": "whole steps in turns", "hardware": "2 cores, CPU", "reference": "base"}
    return {**facts, "methods": ["base", *ratios], "inputs": inputs, "points": points}


def shifted(mean: float) -> tuple[float, ...]:
    """Differences around a mean with the spread of `NOTHING`."""
    return tuple(mean + one for one in NOTHING)


def plain(text: str) -> str:
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{MULTIPLICATION SIGN}", "x")


def ratio(estimate: float) -> dict[str, Any]:
    return {"estimate": estimate, "low": estimate - 0.01, "high": estimate + 0.01, "points": [estimate] * 8}


def found(folder: Path) -> tuple[Folder, Judged]:
    content = read(folder)
    verdict = judged(content)
    assert verdict is not None
    return content, verdict


def test_without_any_effect_every_sentence_says_so(tmp_path: Path) -> None:
    page = Page(report.write(make_ablation(tmp_path / "none", {})))
    assert (
        "4 changes tried on 5 seeds: none better than the base, none worse, 4 without evidence of a difference. "
        "A screening, not a claim." in page.words
    )
    assert (
        "controls: Does context do anything at all? No evidence: gradient_power=0 (0.0000 bits per byte" in page.words
    )
    assert "better" not in " ".join(told.answers(found(tmp_path / "none")[1])).lower()
    assert "not tuned again for each change" in page.words
    assert "must be confirmed on other seeds" in page.words
    assert "No run failed." in page.words


def test_one_better_and_one_worse_are_named_with_their_numbers(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "found", {"refresh_every=1": shifted(-0.1), "scores=random": shifted(0.05)})
    content, verdict = found(folder)
    assert sentences.headline(content).startswith("4 changes tried on 5 seeds: 1 better than the base, 1 worse, 2 w")
    controls, memory = map(plain, told.answers(verdict))
    # t(0.975, 4) = 2.7764, spread sqrt(0.00025), so half the interval is 2.7764 * 0.015811 / sqrt(5) = 0.0196
    assert memory.startswith(
        "memory: How fresh must a context be? Better: refresh_every=1 (-0.1000 bits per byte [-0.1196 to -0.0804]); "
        "no evidence: refresh_every=64 (0.0000 bits per byte [-0.0196 to +0.0196]; one below 0.0"
    )
    assert (
        "? Worse: scores=random (+0.0500 bits per byte [+0.0304 to +0.0696]); no evidence: gradient_power=0" in controls
    )


def test_eight_seeds_are_no_screening_and_five_say_what_chance_does(tmp_path: Path) -> None:
    eight = tuple(-0.1 + one for one in (*NOTHING, 0.01, -0.01, 0.0))
    content, verdict = found(make_ablation(tmp_path / "eight", {"refresh_every=1": eight}, seeds=8))
    assert "screening" not in sentences.headline(content)
    assert "p at most .05 after Holm" in verdict.verdict["statement"]
    assert verdict.pair("bits_per_byte", "refresh_every=1", "base")["word"] == "better"  # 4 * 2 / 2**8 = 0.031
    page = Page(report.write(make_ablation(tmp_path / "five", {})))
    assert "of 4 without any difference, 0.2 would be called better or worse on average" in page.words
    assert "a two-sided sign-flip test over 5 seeds cannot go below p = 0.062" in page.words


def test_failed_runs_are_listed_and_their_seeds_left_out(tmp_path: Path) -> None:
    some = (-0.1, -0.1, None, -0.11, -0.09)
    folder = make_ablation(tmp_path / "failed", {"refresh_every=1": some, "scores=random": (None,) * 5})
    content, verdict = found(folder)
    page = Page(report.write(folder))
    assert "none better than the base" in sentences.headline(content)  # a failure is never better
    assert sentences.headline(content).endswith("1 not compared. A screening, not a claim.")
    assert page.words.count("loss is NaN at step 12") == 6
    assert "6 of 25 runs failed" in page.words
    assert "; not compared: scores=random." in " ".join(told.answers(verdict))
    assert told.rows(verdict, None)[-1][0] == "scores=random"  # after those with an effect
    rows = forest.difference_points(content, "bits_per_byte")
    assert [len(row["seeds"]) for row in rows if row["pair"] == "refresh_every=1"] == [4]
    table = report.table(folder)
    assert re.search(r"failed: cegm-seed2-\w+: loss is NaN at step 12", table)
    assert "not compared" in table


def test_a_failed_base_leaves_nothing_to_compare_with(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "base", {"base": (None,) * 5})
    page = Page(report.write(folder))
    assert "4 changes tried on 5 seeds: none better than the base, none worse, none without" in page.words
    assert "4 not compared" in page.words
    assert "Failed on every seed, and so not judged: base." in page.words
    with pytest.raises(ValueError, match="has nothing to draw"):
        report.export_picture(folder, tmp_path / "picture.svg")
    assert report.table(folder).count("not compared") >= 4 + 1


def test_one_seed_tells_nothing(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "one", {"refresh_every=1": (-0.5,)}, seeds=1)
    page = Page(report.write(folder))
    assert "4 changes tried on 1 seed: none better than the base, none worse, 4 without evidence" in page.words
    assert "no evidence: refresh_every=1 (-0.5000 bits per byte, one seed)" in plain(page.words).replace("No e", "no e")
    assert "Nothing can be concluded: 1 paired seeds leave no spread to judge by" in page.words
    report.export_picture(folder, tmp_path / "picture.svg")
    assert "[" not in report.table(folder).splitlines()[1]


def test_three_seeds_are_shown_one_by_one(tmp_path: Path) -> None:
    near = (-0.1, -0.1001, -0.0999)
    folder = make_ablation(tmp_path / "three", {"refresh_every=1": near, "scores=random": (0.2, -0.1, 0.1)}, seeds=3)
    content, verdict = found(folder)
    controls, memory = map(plain, told.answers(verdict))
    assert memory.endswith(
        "Better: refresh_every=1 (-0.1000 bits per byte, by seed -0.1000, -0.1001, -0.0999); no evidence: refresh_every=64 "
        "(+0.0067 bits per byte, by seed +0.0100, -0.0100, +0.0200)."
    )
    assert "scores=random (+0.0667 bits per byte, by seed +0.2000, -0.1000, +0.1000)" in controls
    assert " to " not in " ".join(row[3] for row in told.rows(verdict, None))
    row = next(line for line in report.table(folder).splitlines() if line.startswith("refresh_every=1 "))
    assert "-0.1000, -0.1001, -0.0999" in plain(row)
    rows = forest.difference_points(content, "bits_per_byte")
    assert {row["low"] for row in rows} == {None}
    assert sum(len(row["seeds"]) for row in rows) == 4 * 3
    report.export_picture(folder, tmp_path / "picture.svg")


def test_costs_of_too_few_blocks_for_an_interval_are_shown_one_by_one(tmp_path: Path) -> None:
    short = {"estimate": 1.5, "low": None, "high": None, "points": [1.4, 1.6]}
    page = Page(report.write(make_ablation(tmp_path / "costs", {}, ratios={"refresh_every=1": short})))
    assert "1.500 1.400, 1.600" in re.sub(r"\s+", " ", page.words)
    drawn = json.dumps(list(page.charts.values()))
    assert '"difference": 1.4' in drawn
    assert '"difference": 1.6' in drawn


def test_costs_stand_in_page_picture_and_table(tmp_path: Path) -> None:
    ratios = {"refresh_every=1": ratio(1.5), "refresh_every=64": ratio(0.9)}
    folder = make_ablation(tmp_path / "costs", {}, ratios=ratios)
    page = Page(report.write(folder))
    assert "Whole steps in turns, on 2 cores, CPU. The reference is base." in page.words
    assert "1.500 1.490 to 1.510" in re.sub(r"\s+", " ", page.words)
    rows = [row for row in page.rows("Time of a step") if "effect" in row]
    assert {row["pair"]: row["effect"] for row in rows if "pair" in row} == {
        "refresh_every=1": 1.5,
        "refresh_every=64": 0.9,
    }
    line = next(line for line in report.table(folder).splitlines() if line.startswith("refresh_every=1 "))
    assert line.split()[-1] == "1.500"
    assert "time of a step" in report.export_picture(folder, tmp_path / "picture.svg").read_text(encoding="utf-8")


def test_controls_in_the_base_s_time_are_told_apart(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "equal", {})
    rows = pd.read_parquet(folder / "results.parquet")
    longer = rows[rows["method"] == "gradient_power=0"].assign(role="equal_seconds", batch_hash="longer")
    longer["bits_per_byte"] -= 0.3
    pd.concat([rows, longer]).to_parquet(folder / "results.parquet")
    config = AblationConfig(output_dir=str(folder), changes=str(folder / "changes.yaml"), seeds="5").comparison
    write_verdict(folder, True, config.parts)
    controls, memory = map(plain, told.answers(found(folder)[1]))
    assert "In the base's training time: Better: gradient_power=0 (-0.3000 bits per byte" in controls
    assert "training time" not in memory


def test_rows_are_sorted_by_effect_everywhere(tmp_path: Path) -> None:
    effects = {"gradient_power=0": 0.3, "scores=random": -0.2, "refresh_every=1": 0.1, "refresh_every=64": 0.0}
    folder = make_ablation(tmp_path / "sorted", {name: shifted(effect) for name, effect in effects.items()})
    expected = sorted(effects, key=lambda name: effects[name])
    content, verdict = found(folder)
    assert [row["pair"] for row in forest.difference_points(content, "bits_per_byte")] == expected
    assert [row[0] for row in told.rows(verdict, None)] == expected
    assert [line.split()[0] for line in report.table(folder).splitlines()[1:5]] == expected


def test_the_plot_shows_every_seed_and_cuts_only_disasters(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "far", {"gradient_power=0": shifted(4.0), "refresh_every=1": shifted(-0.03)})
    rows = forest.difference_points(read(folder), "bits_per_byte")
    assert sum(len(row["seeds"]) for row in rows) == 20
    first = next(row for row in rows if row["pair"] == "refresh_every=1")
    assert list(first["seeds"].values()) == pytest.approx(shifted(-0.03))
    low, high = forest.domain(rows, 0.0)
    assert low < -0.05  # every mark of the others
    assert 0.02 < high < 0.2  # the disaster is beyond
    path = report.export_picture(folder, tmp_path / "picture.svg")
    assert "+4.0000 →" in path.read_text(encoding="utf-8")


def test_nothing_hostile_leaves_its_text(tmp_path: Path) -> None:
    changes = json.dumps(
        [{"part": HOSTILE, "question": HOSTILE, "changes": [{"data": HOSTILE}, {"data": "\x1b[31mred"}]}]
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
    path = report.write(make_ablation(tmp_path / "whole", {}))
    page = Page(path)
    assert path.stat().st_size < 1_200_000
    assert {"verdict", "sentences", "table", "seconds", "configuration", "pairing", "failed", "runs"} <= page.ids()
    assert "paper" not in page.ids()
    assert "default-src 'none'" in page.text
    assert not [tag for tag, attributes in page.tags if tag == "link" or (tag == "script" and "src" in attributes)]
    assert all("$schema" not in chart for chart in page.charts.values())


def test_the_terminal_table_is_aligned_and_narrow(tmp_path: Path) -> None:
    long = json.dumps([{"part": "p" * 60, "changes": [{"data": "d" * 200}, {"refresh_every": 1}]}])
    folder = make_ablation(tmp_path / "long", {"refresh_every=1": (1234.5, None, -0.1, 0.2, 0.3)}, changes=long)
    lines = report.table(folder).splitlines()
    head = "change part effect, bits/byte 95 % interval or each seed word step x"
    assert " ".join(plain(lines[0]).split()) == head
    assert len({len(line) for line in lines[:3]}) == 1
    assert max(map(len, lines[:3])) <= 130
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


def test_the_command_draws_the_page_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_ablation(tmp_path / "again", {})
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"report: {folder / 'report.html'}\n"


def test_an_ablation_that_was_not_judged_says_how_it_is(tmp_path: Path) -> None:
    folder = make_ablation(tmp_path / "open", {})
    (folder / "verdict.json").unlink()
    page = Page(report.write(folder))
    assert "has not been judged yet: it holds no verdict. Its command, given again, judges what is there." in page.words


def test_keeping_an_ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_ablation(tmp_path / "kept", {}, ratios={"refresh_every=1": ratio(1.5)})
    place = tmp_path / "place"
    run = next((folder / "runs").iterdir())
    (run / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 1, "tokens": 8, "loss": 1.0, "layers": {"x": {}}}\n', encoding="utf-8"
    )
    keep = Path(__file__).parents[3] / "benchmarks" / "keep.py"
    monkeypatch.setattr(sys, "argv", ["keep.py", str(folder), str(place)])
    runpy.run_path(str(keep), run_name="__main__")
    kept = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert kept == {
        *("plan.jsonl", "verdict.json", "overhead.json", "results.csv", "picture.svg"),
        f"metrics/{run.name}.jsonl",
    }
    line = json.loads((place / "metrics" / f"{run.name}.jsonl").read_text())
    assert line == {"kind": "train", "step": 1, "tokens": 8, "loss": 1.0}
    assert report.table(place) == report.table(folder)

"""The first screen: three tiles, one forest of all measures and the loss curve; the rest behind headings."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cegm.lab import report
from cegm.lab.report import all_measures
from cegm.lab.report.judged import Judged
from cegm.lab.report.runs import Folder
from cegm.lab.report.tiles import Tile, tiles
from cegm.pages import MINUS
from pages import Page
from verdicts import axis, folder_of, judged_on, with_few_seeds

WORDS = {"muon": "no evidence", "adamw": "better"}
TIMES = "\N{MULTIPLICATION SIGN}"
NOT_TIMED = "Runs share the machine, so no ratio of their times is given; --overhead times steps in turns."


def judged_here() -> dict[str, Any]:
    """A verdict with a loss, an accuracy, a ratio, and a ratio of times of runs that shared a machine."""
    levels = [("", 0.0, 0.25, {"cegm": 0.6, "muon": 0.5, "adamw": 0.4})]
    own = judged_on([axis("noise", WORDS, levels)])
    own["measures"][0]["methods"] = {m: {"mean": 2.0, "values": {"0": 2.0}} for m in own["methods"]}
    for name in ("memory", "step_time"):
        measure, _ = axis(name, WORDS, title=name, better="lower", effects={"muon": 0.9, "adamw": 1.5})
        own["measures"].append(measure | {"effect": "ratio"})
    return own


def overhead(subject: dict[str, Any] | None = None) -> dict[str, Any]:
    ratio = subject or {"estimate": 1.25, "low": 1.2, "high": 1.3, "points": [1.2, 1.3] * 4}
    methods = {
        "adamw": {"ratio": {"estimate": 1.0, "low": 1.0, "high": 1.0}},
        "muon": {"ratio": {"estimate": 1.1, "low": 1.0, "high": 1.2}},
        "cegm": {"ratio": ratio},
    }
    shape = {"width": 8, "batch": 2, "length": 4, "methods": methods}
    return {**{"how": "whole steps in turns", "hardware": "a machine", "reference": "adamw"}, "points": [shape]}


def by_measure(
    verdict: dict[str, Any], measured: dict[str, Any] | None = None
) -> dict[tuple[str, str], dict[str, Any]]:
    rows, _ = all_measures.rows(Judged(verdict), measured)
    return {(row["measure"], row["against"]): row for row in rows}


def test_every_measure_is_in_percent_of_the_other_and_right_is_better() -> None:
    rows = by_measure(judged_here())
    assert rows["noise", "AdamW"]["effect"] == pytest.approx(50.0)  # 0.2 of 0.4
    assert rows["noise", "Muon"]["effect"] == pytest.approx(20.0)
    assert rows["bits_per_byte", "AdamW"]["effect"] == pytest.approx(5.0)  # 0.1 less than 2
    assert rows["memory", "Muon"]["effect"] == pytest.approx(10.0)  # a tenth less
    assert rows["memory", "AdamW"]["effect"] == pytest.approx(-50.0)
    for row in rows.values():
        assert row["low"] < row["effect"] < row["high"]


def test_below_five_seeds_the_forest_has_points_and_no_interval() -> None:
    rows = by_measure(with_few_seeds(judged_here(), (0.02, -0.02, 0.0)))
    assert {row["low"] for row in rows.values()} == {None}
    assert list(rows["noise", "AdamW"]["seeds"].values()) == pytest.approx([55.0, 45.0, 50.0])
    assert list(rows["memory", "AdamW"]["seeds"].values()) == pytest.approx([-52.0, -48.0, -50.0])


def test_times_come_from_steps_in_turns_alone() -> None:
    verdict = judged_here()
    assert not any("step_time" in measure or "Time" in measure for measure, _ in by_measure(verdict))
    assert "step_time" not in [measure["name"] for measure in Judged(verdict).shown]
    time = by_measure(verdict, overhead())["Time per step", "AdamW"]
    assert (time["effect"], time["low"], time["high"]) == pytest.approx((-25.0, -30.0, -20.0))
    few = by_measure(verdict, overhead({"estimate": 1.5, "low": None, "high": None, "points": [1.4, 1.6]}))
    assert list(few["Time per step", "AdamW"]["seeds"].values()) == pytest.approx([-40.0, -60.0])


def test_what_has_no_percent_is_named() -> None:
    verdict = judged_here()
    noise = next(one for one in verdict["measures"] if one["name"] == "noise")
    noise["methods"]["adamw"]["values"] = {"0": 0.0, "1": 0.0}
    rows, left = all_measures.rows(Judged(verdict), None)
    assert left == ["noise"]
    assert ("noise", "AdamW") not in {(row["measure"], row["against"]) for row in rows}


def shown(measured: dict[str, Any] | None = None, verdict: dict[str, Any] | None = None) -> list[Tile]:
    content: Folder = folder_of(verdict or judged_here())
    content.overhead = measured
    return tiles(content)


def test_three_tiles_say_number_spread_and_word() -> None:
    quality, time, memory = shown(overhead())
    assert (quality.value, quality.word) == (f"{MINUS}0.1000", "better")
    assert quality.about == f"against AdamW, 95 % interval {MINUS}0.1500 to {MINUS}0.0500"
    assert quality.more == [(f"against Muon: {MINUS}0.0200, 95 % interval {MINUS}0.0700 to +0.0300", "no evidence")]
    assert (time.value, time.word) == (f"1.250 {TIMES}", "")
    assert time.about == "that of AdamW, 95 % interval 1.200 to 1.300"
    assert (memory.value, memory.word) == (f"1.500 {TIMES}", "better")


def test_without_steps_in_turns_the_tile_of_time_has_no_number() -> None:
    _, time, _ = shown()
    assert (time.value, time.about, time.note) == ("\N{EN DASH}", "not measured", NOT_TIMED)
    failed = overhead()
    failed["points"] = [{"width": 8, "batch": 2, "length": 4, "error": "no memory"}]
    assert shown(failed)[1].about == "not measured"


def test_few_blocks_are_shown_one_by_one() -> None:
    _, time, _ = shown(overhead({"estimate": 1.5, "low": None, "high": None, "points": [1.4, 1.6]}))
    assert time.about == "that of AdamW, by block 1.400, 1.600"


def test_a_comparison_that_is_not_judged_has_no_tiles() -> None:
    content = folder_of(judged_here())
    content.verdict = None
    assert tiles(content) == []


def test_tiles_forest_and_curve_come_first_and_the_rest_is_behind_headings(comparison: Path) -> None:
    page = Page(report.write(comparison))
    header, rest = page.text.split("</header>")
    assert re.findall(r'<div class="tile"><h2>(\w+)</h2>', header) == ["Quality", "Time", "Memory"]
    assert re.findall("<h3>([^<]+)</h3>", header) == ["Every measure", "Validation loss"]
    assert "<table" not in header
    assert "1 of 15 runs failed" in header
    headings = [line.split("<h2 ")[0] for line in rest.splitlines() if "<h2 " in line]
    assert len(headings) >= 12
    assert set(headings) == {"<details><summary>"}


def test_an_ablation_counts_words_and_gives_the_range_of_costs() -> None:
    words = {"x=1": "better", "y=1": "worse", "z=1": "no evidence"}
    verdict = judged_on([], dict.fromkeys(words, "no evidence"))
    loss = verdict["measures"][0]
    memory, _ = axis("memory", words, better="lower", effects={"x=1": 0.5, "y=1": 2.0, "z=1": 1.0})
    verdict["measures"].append(memory | {"effect": "ratio"})
    for measure in (loss, memory):
        for pair, (change, word) in zip(measure["pairs"], words.items(), strict=True):
            pair |= {"pair": [change, "base"], "word": word}
    verdict["methods"] = ["base", *words]
    content = folder_of(verdict)
    content.runs = [replace(content.runs[0], method=arm) for arm in verdict["methods"]]
    quality, time, memory_tile = tiles(content)
    assert (quality.value, quality.about, quality.word) == ("1", "of 3 changes", "better")
    assert quality.more == [("1", "no evidence"), ("1", "worse")]
    assert time.note == NOT_TIMED
    assert memory_tile.value == f"0.50 to 2.00 {TIMES}"


def test_a_run_alone_has_its_own_numbers(comparison: Path) -> None:
    run = next((comparison / "runs").glob("cegm-seed1-[!e]*"))
    page = Page(report.write(run))
    (run / "report.html").unlink()
    header = page.text.split("</header>")[0]
    assert len(re.findall(r'class="value">[\d.]+', header)) == 3

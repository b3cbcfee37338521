"""The drill on the page and in the terminal: what the file holds, and nothing where there was none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cegm.lab import report
from cegm.lab.report import page
from cegm.lab.report.drill_chart import chart, curve_points, rows
from cegm.lab.report.runs import Folder, read
from pages import Page

AFTER = 12
HEIGHT = {"adamw": 1.0, "muon": 0.5, "cegm": 0.25}


def made(seeds: int = 3) -> dict[str, Any]:
    """A `drill.json`: clipping halves what a bad step does, and a later seed suffers more."""
    return {
        "how": "every run is copied",
        "hardware": "2 cores, CPU",
        "methods": ["adamw", "muon", "cegm"],
        "spikes": {"gradient": "gradient x 1,000", "tokens": "random tokens"},
        "after": AFTER,
        "healed": 0.02,
        "points": [point(method, seed) for seed in range(seeds) for method in HEIGHT],
    }


def point(method: str, seed: int) -> dict[str, Any]:
    curves = [curve(method, seed, spike, clip) for clip in (0.0, 1.0) for spike in ("gradient", "tokens")]
    return {"id": f"{method}{seed}", "method": method, "seed": seed, "curves": curves}


def curve(method: str, seed: int, spike: str, clip: float) -> dict[str, Any]:
    highest = HEIGHT[method] * (1 + seed) / (1 + clip)
    excess = [highest / (step + 1) for step in range(AFTER)]
    recovered = None if method == "adamw" and not clip else 2 + seed
    numbers = {"highest": highest, "recovered_after": recovered, "left": excess[-1]}
    return {"spike": spike, "clip": clip, "excess": excess, **numbers}


@pytest.fixture
def folder(comparison: Path) -> Folder:
    """A comparison with its drill, to be changed at will."""
    content = read(comparison)
    content.drill = made()
    return content


@pytest.fixture(scope="module")
def copied(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison with its drill, one of whose points could not be measured."""
    copy = shutil.copytree(comparison, tmp_path_factory.mktemp("drill") / "copy")
    drill = made()
    drill["points"][0] = {"id": "x", "method": "adamw", "seed": 0, "error": "<b>loss is not finite at step 3</b>"}
    (copy / "drill.json").write_text(json.dumps(drill))
    return copy


@pytest.fixture(scope="module")
def drawn(copied: Path) -> Page:
    return Page(report.write(copied))


def test_the_page_has_a_panel_per_spike_and_clipping_with_every_method(drawn: Page) -> None:
    assert "drill" in drawn.ids()
    assert "How each method recovers from one bad step" in drawn.words
    points = [row for row in drawn.rows("Excess after one bad step") if "step" in row]
    assert {(row["spike"], row["clipping"], row["method"]) for row in points} == {
        (spike, clipping, method)
        for spike in ("gradient x 1,000", "random tokens")
        for clipping in ("without clipping", "with clipping")
        for method in ("AdamW", "Muon", "CEGM")
    }
    chart = next(one for one in drawn.charts.values() if one["description"].startswith("Excess"))
    assert "width" not in chart, "panels have widths of their own"
    assert chart["spec"]["width"] == 480


def test_lines_are_medians_and_bands_reach_over_all_seeds(folder: Folder) -> None:
    assert folder.drill is not None
    first = next(p for p in curve_points(folder.drill) if p["method"] == "Muon" and p["clipping"] == "with clipping")
    assert {key: first[key] for key in ("step", "low", "middle", "high")} == {
        "step": 1, "low": 0.25, "middle": 0.5, "high": 0.75,
    }  # fmt: skip


def test_a_line_ends_where_a_seed_is_not_finite(folder: Folder) -> None:
    assert folder.drill is not None
    broken = folder.drill["points"][4]["curves"][0]  # Muon, seed 1, gradient, without clipping
    broken["excess"][3:] = [None] * (AFTER - 3)
    broken["highest"] = broken["left"] = broken["recovered_after"] = None
    steps = [p["step"] for p in curve_points(folder.drill) if p["method"] == "Muon" and p["step"] > 3]
    assert len(steps) == 3 * (AFTER - 3), "the other three panels go on"
    row = next(row for row in rows(folder.drill) if row[1:3] == ["none", "Muon"])
    assert row[3:] == ["+1.500", "4", "2 to > 12", "+0.125", "3"]
    for one in (folder.drill["points"][1], folder.drill["points"][7]):
        one["curves"][0].update(excess=[None] * AFTER, highest=None, left=None, recovered_after=None)
    row = next(row for row in rows(folder.drill) if row[1:3] == ["none", "Muon"])
    assert row[3:] == ["not finite", "> 12", "> 12", "not finite", "3"]


def test_the_table_has_medians_in_reading_order(folder: Folder, drawn: Page) -> None:
    assert folder.drill is not None
    found = rows(folder.drill)
    assert [row[:3] for row in found[:4]] == [
        ["gradient x 1,000", "none", "AdamW"],
        ["gradient x 1,000", "none", "Muon"],
        ["gradient x 1,000", "none", "CEGM"],
        ["gradient x 1,000", "norm 1", "AdamW"],
    ]
    assert len(found) == 12
    assert found[0][3:] == ["+2.000", "> 12", "> 12", "+0.167", "3"]
    assert found[5][3:] == ["+0.250", "3", "2 to 4", "+0.021", "3"]
    assert "Every run is copied. Medians of 3 seeds, on 2 cores, CPU." in drawn.words
    assert all(cell in drawn.words for cell in found[5])


def test_a_point_without_numbers_is_told_and_left_out(drawn: Page) -> None:
    assert "AdamW was not drilled on seed 0: <b>loss is not finite at step 3</b>." in drawn.words
    assert "<b>loss" not in drawn.text


def test_methods_stand_in_the_one_order_whatever_the_file_says() -> None:
    expected = rows(made())
    assert rows({**made(), "methods": ["muon", "cegm", "adamw"]}) == expected


def test_the_terminal_has_an_aligned_line_per_row(copied: Path) -> None:
    lines = report.table(copied).splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("bad step"))
    table = lines[head : head + 13]
    assert len({len(line) for line in table}) == 1
    assert table[1].split() == [
        "gradient",
        "x",
        "1,000",
        "none",
        "AdamW",
        "+2.500",
        ">",
        "12",
        ">",
        "12",
        "+0.208",
        "2",
    ]
    assert lines[head + 13] == ""


@pytest.mark.parametrize("points", [[], [{"id": "x", "method": "muon", "seed": 0, "error": "no memory"}]])
def test_nothing_measured_is_said(folder: Folder, points: list[dict[str, Any]]) -> None:
    folder.drill = {**made(), "points": points}
    assert chart(folder.drill) is None
    text = page.render(folder)
    assert "No method could be drilled." in text
    assert "Every bad step in numbers" not in text


def test_without_a_drill_there_is_no_section(comparison: Path) -> None:
    assert 'id="drill"' not in page.render(read(comparison))
    assert "bad step" not in report.table(comparison)


def test_a_damaged_file_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "drill.json").write_text('{"points": []}')
    with pytest.raises(ValueError, match=r"drill\.json lacks after, .*compare again with --drill"):
        read(tmp_path)

"""The overhead on the page: what the file holds, where it was measured, and nothing where it was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cegm.lab import report
from cegm.lab.report import page, sentences
from cegm.lab.report.overhead_chart import AXES, compared, ratios, rows
from cegm.lab.report.runs import Folder, read
from pages import Page

SHAPES = [(128, 8, 256), (64, 8, 256), (256, 8, 256), (128, 2, 256), (128, 4, 256), (128, 8, 64), (128, 8, 128)]
FACTOR = {"adamw": 1.0, "muon": 1.05, "cegm": 1.1}


def made(shapes: list[tuple[int, int, int]] = SHAPES) -> dict[str, Any]:
    """An `overhead.json`: small batches cost most."""
    return {
        "how": "whole steps in turns",
        "hardware": "2 cores, CPU",
        "reference": "adamw",
        "methods": ["adamw", "muon", "cegm"],
        "points": [point(*shape) for shape in shapes],
    }


def point(width: int, batch: int, length: int) -> dict[str, Any]:
    methods = {}
    for method, factor in FACTOR.items():
        ratio = 1 + (factor - 1) * 8 / batch
        spread = 0.0 if factor == 1.0 else 0.02
        methods[method] = {
            "seconds": [0.1 * ratio] * 8,
            "seconds_per_step": 0.1 * ratio,
            "tokens_per_second": batch * length / (0.1 * ratio),
            "ratio": {"estimate": ratio, "low": ratio - spread, "high": ratio + spread},
            "peak_bytes": int(2**26 * factor),
            "peak_ratio": factor,
            "state_bytes": 4 * width,
            "state_bytes_per_matrix_weight": 4.0,
        }
    shape = {"width": width, "batch": batch, "length": length}
    return {"id": f"{width}-{batch}-{length}", **shape, "parameters": width, "methods": methods}


@pytest.fixture
def folder(comparison: Path) -> Folder:
    """A comparison with its overhead, to be changed at will."""
    content = read(comparison)
    content.overhead = made()
    return content


@pytest.fixture(scope="module")
def drawn(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a comparison with its overhead, one of whose shapes could not be measured."""
    copy = shutil.copytree(comparison, tmp_path_factory.mktemp("overhead") / "copy")
    overhead = made()
    overhead["points"][2] = {"id": "x", "width": 256, "batch": 8, "length": 256, "error": "<b>not enough memory</b>"}
    (copy / "overhead.json").write_text(json.dumps(overhead))
    return Page(report.write(copy))


def told(folder: Folder) -> str:
    return " ".join(sentence.text for sentence in sentences.sentences(folder))


def test_a_chart_per_axis_shows_every_ratio(drawn: Page) -> None:
    assert "overhead" in drawn.ids()
    values = {"width of the model": [64, 128], "rows of a batch": [2, 4, 8], "tokens of a row": [64, 128, 256]}
    for name, expected in values.items():
        marks = [row for row in drawn.rows(f"Time of a step by {name}") if "at" in row]
        assert {row["method"] for row in marks} == {"CEGM", "Muon"}
        assert [row["at"] for row in marks if row["method"] == "CEGM"] == expected
        assert all(row["low"] < row["estimate"] < row["high"] for row in marks)
    rows = drawn.rows("Time of a step by rows")
    assert {row["at"]: row["estimate"] for row in rows if row.get("method") == "CEGM"} == pytest.approx(
        {2: 1.4, 4: 1.2, 8: 1.1}
    )


def test_a_shape_without_numbers_is_told_and_left_out(drawn: Page) -> None:
    assert "No overhead was measured at width 256, 8 x 256 tokens: <b>not enough memory</b>." in drawn.words
    assert "<b>not" not in drawn.text


def test_the_table_has_every_shape_and_method(drawn: Page) -> None:
    found = rows(made())
    assert len(found) == len(SHAPES) * 3
    assert found[2] == ["CEGM", "128", "8 x 256", "110.0", "18,618", "1.100", "1.080 to 1.120", "70.4", "1.100", "4.00"]
    assert found[0][6] == "\N{EN DASH}", "the reference has no interval"
    assert all(cell in drawn.words for cell in found[2])
    assert "Whole steps in turns, on 2 cores, CPU. The reference is AdamW." in drawn.words


def test_sentences_tell_the_range_and_where_it_is_widest(folder: Folder) -> None:
    assert (
        "Over 7 shapes, a step of CEGM takes 1.10 to 1.40 \N{MULTIPLICATION SIGN} the time of AdamW's "
        "(most at width 128, 2 x 256 tokens) and 1.10 to 1.10 \N{MULTIPLICATION SIGN} its peak memory." in told(folder)
    )


def test_a_shape_alone_has_numbers_but_no_chart(folder: Folder) -> None:
    folder.overhead = made(SHAPES[:1])
    assert "Over 1 shape, a step of" in told(folder)
    assert all(ratios(folder.overhead, axis) is None for axis in AXES)
    assert len(rows(folder.overhead)) == 3


@pytest.mark.parametrize("points", [[], [{"id": "x", "width": 8, "batch": 1, "length": 8, "error": "no memory"}]])
def test_nothing_measured_is_said(folder: Folder, points: list[dict[str, Any]]) -> None:
    folder.overhead = {**made(), "points": points}
    text = page.render(folder)
    assert "No two shapes could be measured." in text
    assert "Every shape in numbers" not in text
    assert "a step of" not in told(folder)


def test_without_a_measurement_there_is_no_section(comparison: Path) -> None:
    assert 'id="overhead"' not in page.render(read(comparison))


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("{}", "lacks hardware, how, methods")])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "overhead.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert "overhead.json" in str(error.value)
    assert "\n" not in str(error.value)


def few(overhead: dict[str, Any], factors: tuple[float, ...]) -> dict[str, Any]:
    """The overhead with as many blocks, too few for an interval."""
    for ratio in (own["ratio"] for point in overhead["points"] for own in point["methods"].values()):
        same = ratio["low"] == ratio["high"]
        points = [ratio["estimate"] * (1.0 if same else factor) for factor in factors]
        ratio |= {"low": None, "high": None, "points": points}
    return overhead


def test_too_few_blocks_for_an_interval_are_shown_one_by_one() -> None:
    overhead = few(made(), (0.9, 1.1))
    assert [row[6] for row in rows(overhead)[:3]] == ["\N{EN DASH}", "0.945, 1.155", "0.990, 1.210"]
    chart = ratios(overhead, "width")
    assert chart is not None
    drawn = [row for data in chart.to_dict()["datasets"].values() for row in data]
    rings = [row["block"] for row in drawn if row.get("method") == "CEGM" and "block" in row]
    assert rings == pytest.approx([0.99, 1.21] * 3)
    assert {row["low"] for row in drawn if "low" in row} == {None}


def test_methods_stand_in_the_one_order_whatever_the_file_says() -> None:
    overhead = made()
    expected = rows(overhead)
    overhead["methods"] = ["cegm", "adamw", "muon"]
    assert rows(overhead) == expected
    assert compared(overhead) == ["cegm", "muon"]

"""The page: complete, small, offline, escaped, and showing exactly what the folder holds."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from cegm.lab import report
from cegm.lab.report import curves
from cegm.lab.report.page import render
from cegm.lab.report.runs import read
from cegm.pages import MINUS
from pages import Page

HOSTILE = "</script><script>alert('run')</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page(comparison: Path) -> Page:
    return Page(report.write(comparison))


def metrics(comparison: Path, pattern: str) -> list[list[dict[str, Any]]]:
    files = sorted((comparison / "runs").glob(f"{pattern}/metrics.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_size_and_sections(comparison: Path, page: Page) -> None:
    assert (comparison / "report.html").stat().st_size < 1_200_000
    sections = [
        "verdict",
        "sentences",
        "table",
        "paper",
        "table-ii",
        "figure-4",
        "learning",
        "final",
        "seconds",
        "cost",
        "layers",
    ]
    sections += ["rates", "configuration", "pairing", "failed", "runs"]
    assert set(sections) <= page.ids()
    places = [page.text.index(f'id="{section}"') for section in sections]
    assert places == sorted(places)
    assert len(page.charts) >= 16


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            assert not re.match(r"\s*(https?:)?//", attributes.get(name) or ""), (tag, attributes)
        assert tag != "link"
        assert tag != "script" or "src" not in attributes
    style = page.text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page.text
    assert all("$schema" not in chart for chart in page.charts.values())


def test_the_headline_is_cautious_and_says_what_it_cost(page: Page) -> None:
    assert "In a screening with 3 seeds, CEGM ends with a lower validation loss than Muon and AdamW." in page.words
    assert "A screening with 3 paired seeds, not a claim" in page.words
    assert "the peak memory" in page.words
    assert "The time per step was not compared" in page.words
    assert "1 of 15 runs failed" in page.words


def test_curves_of_runs_that_were_validated_at_both_ends_only_have_no_ending(comparison: Path) -> None:
    folder = read(comparison)
    for run in folder.runs:
        run.validation[:] = run.validation[:1] + run.validation[-1:]
    assert curves.learning_curves(folder) is not None
    assert curves.learning_curves(folder, ending=True) is None


def test_learning_curves_are_the_mean_and_range_over_seeds(comparison: Path, page: Page) -> None:
    seeds: dict[int, list[float]] = defaultdict(list)
    for lines in metrics(comparison, "cegm-seed?-[!e]*"):
        for line in lines:
            if line["kind"] == "validation":
                seeds[line["tokens"]].append(line["bits_per_byte"])
    drawn = {row["tokens"]: row for row in page.rows("Validation loss") if row["method"] == "CEGM"}
    assert drawn.keys() == seeds.keys()
    for tokens, values in seeds.items():
        assert (drawn[tokens]["low"], drawn[tokens]["high"]) == (min(values), max(values))
        assert drawn[tokens]["mean"] == pytest.approx(sum(values) / len(values))


def test_dots_are_the_results_of_the_main_runs(comparison: Path, page: Page) -> None:
    expected = set()
    for file in (comparison / "runs").glob("*/result.json"):
        result = json.loads(file.read_text())
        if result["role"] == "main":
            expected.add((result["method"], result["seed"], result["bits_per_byte"]))
    rows = [row for row in page.rows("Final validation loss") if "seed" in row]
    assert {(row["method"].lower(), row["seed"], row["value"]) for row in rows} == expected


def test_a_miss_is_drawn_as_a_miss(comparison: Path, page: Page) -> None:
    verdict = json.loads((comparison / "verdict.json").read_text())
    steps = next(one for one in verdict["measures"] if one["name"] == "steps_to_target")["methods"]
    missed = {
        (method, int(seed)) for method in steps for seed, value in steps[method]["values"].items() if value is None
    }
    rows = page.rows("Steps needed")
    assert missed
    assert {(row["method"].lower(), row["seed"]) for row in rows if row["outcome"] == "missed"} == missed


def test_retention_is_the_mean_over_seeds(comparison: Path, page: Page) -> None:
    results = [json.loads(file.read_text()) for file in (comparison / "runs").glob("muon-seed?-[!e]*/result.json")]
    rows = {row["length"]: row for row in page.rows("Right answers") if row.get("method") == "Muon"}
    assert sorted(rows) == [512, 1024, 2048, 4096, 8192]
    for length, row in rows.items():
        values = [result["retention"][str(length)]["accuracy"] for result in results]
        assert row["mean"] == pytest.approx(sum(values) / 3)
    assert "trained at 256" in page.text
    assert {row["mean"] for row in page.rows("Right answers") if row.get("label") == "chance"} == {0.125}


def test_layer_map_holds_the_logged_diagnostics(comparison: Path, page: Page) -> None:
    cells = {(row["layer"], row["step"]): row["value"] for row in page.rows("Effective rank of the context: CEGM")}
    expected: dict[tuple[str, int], list[float]] = defaultdict(list)
    for lines in metrics(comparison, "cegm-seed?-[!e]*"):
        for line in lines:
            for layer, numbers in line.get("layers", {}).items():
                expected[layer.removeprefix("model.layers."), line["step"]].append(numbers["context_rank"])
    assert {layer for layer, _ in cells} == {layer for layer, _ in expected}  # steps may be thinned
    assert {min(step for _, step in cells), max(step for _, step in cells)} == {20, 400}
    assert all(value == pytest.approx(sum(expected[key]) / 3, rel=1e-3) for key, value in cells.items())
    assert not any("context: AdamW" in chart["description"] for chart in page.charts.values())  # it has none


def test_figure_1_comes_first_in_its_section_and_once_per_method(page: Page) -> None:
    section = page.text.split('id="layers"')[1].split("</section>")[0]
    titles = re.findall(r"<h3>([^<]+)</h3>", section)
    assert titles[:3] == [f"Figure 1. Gradient map: {method}" for method in ("CEGM", "Muon", "AdamW")]
    assert not any(title.startswith("Figure 1") for title in titles[3:])


def test_configuration_marks_what_differs(page: Page) -> None:
    marked = re.findall(r'<tr class="differs"><td class="text long"><code>([^<]+)', page.text)
    assert marked == [
        "aux_lr",
        "learning_rate",
        "optimizer_options.heads",
        "optimizer_options.power",
        "optimizer_options.momentum",
    ]


def test_everything_from_data_is_escaped(make: Any) -> None:
    folder = make(
        seeds=2,
        steps=40,
        error=HOSTILE,
        data=HOSTILE,
        methods=("adamw", "cegm", HOSTILE.replace("/", "|")),  # part of a folder's name, which cannot hold a slash
        failed=frozenset({("adamw", 1, "main")}),
        layers=[f"model.{HOSTILE}.{number}" for number in range(2)] + ["model.plain"],
    )
    page = Page(report.write(folder))
    assert "<script>alert" not in page.text
    assert "<|script>" not in page.text
    assert "<img src=x" not in page.text
    assert "alert('run')" in page.words  # it is shown, as text
    assert not any(tag == "img" for tag, _ in page.tags)
    assert page.charts  # the JSON blocks still parse, hostile names and all
    assert "</script><script>alert" in json.dumps(page.charts)


def test_a_single_run(comparison: Path, tmp_path: Path) -> None:
    source = next((comparison / "runs").glob("cegm-seed1-[!e]*"))
    run = tmp_path / "run"
    shutil.copytree(source, run)
    (run / "result.json").unlink()
    page = Page(report.write(run))
    assert "One run of CEGM (seed 1) finished; there is nothing to compare it with." in page.words
    assert {"learning", "cost", "layers", "rates", "configuration", "runs"} <= page.ids()
    assert not {"pairing", "paper", "table"} & page.ids()
    losses = [line["loss"] for line in metrics(comparison, source.name)[0] if line["kind"] == "train"]
    assert [row["loss"] for row in page.rows("Training loss")] == losses


def test_all_runs_of_one_method_failed(make: Any) -> None:
    failed = frozenset(("cegm", seed, "main") for seed in range(2))
    folder = make(seeds=2, steps=40, failed=failed, error="out of memory", layers=[])
    page = Page(report.write(folder))
    assert "CEGM cannot be judged" in page.words
    assert page.words.count("out of memory") == 2
    assert "The runs logged no numbers per layer." in page.words
    assert "out of memory" in report.table(folder)


def test_a_comparison_that_is_still_running(make: Any) -> None:
    folder = make(seeds=2, steps=40)
    (folder / "verdict.json").unlink()
    shutil.rmtree(next((folder / "runs").glob("muon-seed1-[!e]*")))
    page = Page(report.write(folder))
    assert "has not been judged yet" in page.words
    assert "missing" in page.words
    assert page.rows("Validation loss")


def test_a_large_model_stays_a_small_page(make: Any) -> None:
    layers = [
        f"model.language_model.layers.{block}.mlp.{name}_proj" for block in range(60) for name in ("gate", "up", "down")
    ]
    path = report.write(make(seeds=1, layers=layers))
    assert path.stat().st_size < 1_200_000
    assert "of 180 layers are shown" in Page(path).words


def test_drawing_twice_gives_the_same_page(comparison: Path) -> None:
    first = report.write(comparison).read_bytes()
    assert report.write(comparison).read_bytes() == first
    assert not list(comparison.glob("*.partial"))


def test_a_last_line_that_was_cut_off_is_left_out(comparison: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(next((comparison / "runs").glob("adamw-seed0-[!e]*")), run)
    lines = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(lines + '{"kind": "train", "st')
    assert report.write(run).exists()
    (run / "metrics.jsonl").write_text('{"kind": "train", "st\n' + lines)
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 1 is not JSON"):
        report.write(run)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a comparison nor a run folder") as error:
        report.write(tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def cells_of(row: str) -> list[str]:
    return re.findall("<td[^>]*>([^<]*)</td>", row)


def test_skipped_steps_and_spikes_are_counted_per_run(comparison: Path) -> None:
    folder = read(comparison)
    first, second, *_ = folder.finished()
    first.result |= {"skipped_steps": 2, "spikes": 1234}
    second.result.pop("spikes", None)  # from before spikes were counted
    rows = re.findall("<tr>(<td.*)</tr>", render(folder).partition('id="runs"')[2])
    cells = dict(zip(((run.method, run.seed, run.role) for run in folder.runs), map(cells_of, rows), strict=False))
    assert cells[first.method, first.seed, "main"][5:7] == ["2", "1,234"]
    assert cells[second.method, second.seed, "main"][6] == "\N{EN DASH}"


def test_three_seeds_are_drawn_one_by_one_and_five_have_an_interval(comparison: Path, page: Page, make: Any) -> None:
    verdict = json.loads((comparison / "verdict.json").read_text())
    pairs = next(one for one in verdict["measures"] if one["name"] == "bits_per_byte")["pairs"]
    rows = page.rows("Difference between methods")
    rings = [row["difference"] for row in rows if "difference" in row]
    assert rings == [point for pair in pairs for point in pair["points"]]
    assert len(rings) == 9
    assert {row["low"] for row in rows if "low" in row} == {None}
    points = re.findall('class="spread"[^>]*>([^<]*)<', page.text)[0].split(", ")
    assert [float(point.replace(MINUS, "-")) for point in points] == pytest.approx(pairs[0]["points"], abs=5e-5)
    assert "95 % intervals in brackets" not in page.words
    five = Page(report.write(make(seeds=5, steps=40, layers=[])))
    rows = five.rows("Difference between methods")
    assert not [row for row in rows if "difference" in row]
    assert all(row["low"] <= row["effect"] <= row["high"] for row in rows if "low" in row)
    assert "95 % intervals in brackets" in five.words


def test_without_adamw_the_page_names_muon_as_its_baseline(make: Any) -> None:
    folder = make(methods=("muon", "normuon", "soap", "cegm"), seeds=2, steps=40, layers=[], failed=frozenset())
    page = Page(report.write(folder))
    assert "The baseline is Muon." in page.words
    assert f"CEGM {MINUS} Muon" in page.words
    assert f"CEGM {MINUS} SOAP" not in page.words
    assert read(folder).methods == json.loads((folder / "verdict.json").read_text())["methods"]
    head = next(line for line in report.table(folder).splitlines() if line.startswith("axis"))
    assert head.split()[:6] == ["axis", "unit", "Muon", "SOAP", "NorMuon", "CEGM"]


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[]", "must hold a JSON object"), ("{}", "lacks failed,")]
)
def test_a_damaged_verdict_is_named_in_one_line(comparison: Path, tmp_path: Path, text: str, message: str) -> None:
    place = shutil.copytree(comparison, tmp_path / "copy")
    (place / "verdict.json").write_text(text)
    with pytest.raises(ValueError, match=rf"verdict\.json {message}") as error:
        report.write(place)
    assert "\n" not in str(error.value)


def test_a_page_that_cannot_be_written_leaves_the_old_one(comparison: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = report.write(comparison).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cegm.durable.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        report.write(comparison)
    assert (comparison / "report.html").read_bytes() == before
    (comparison / "report.html.partial").unlink()

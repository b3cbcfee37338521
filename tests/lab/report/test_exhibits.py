"""Tables and figures of the paper: every number is where it belongs, and what is missing is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cegm.lab import report
from cegm.lab.report.exhibit_rows import Row
from cegm.lab.report.exhibits import Exhibit, columns, exhibits
from pages import Page
from verdicts import axis, folder_of, judged_on, with_few_seeds

WORDS = {"muon": "no evidence", "adamw": "better"}
MINUS, ARROW, DASH = "\N{MINUS SIGN}", "\N{RIGHTWARDS ARROW}", "\N{EN DASH}"


def means(cegm: float, muon: float = 0.5, adamw: float = 0.25) -> dict[str, float]:
    return {"cegm": cegm, "muon": muon, "adamw": adamw}


def shown(place: str, axes: list[Any], **more: Any) -> Exhibit:
    found, _ = exhibits(folder_of(judged_on(axes, **more)))
    return next(exhibit for exhibit in found if exhibit.claim.place == place)


def named(rows: list[Row], name: str, part: str = "") -> Row:
    return next(row for row in rows if row.name == name and row.part == part)


def noise(subset: str = "") -> list[tuple[str, float, float | None, dict[str, float]]]:
    return [(subset, 0.1 * step, 0.25, means(0.9 - 0.1 * step)) for step in range(5)]


def test_table_iii_has_a_row_per_share_and_judges_the_whole() -> None:
    exhibit = shown("Table III", [axis("noise", WORDS, noise())])
    assert [row.name for row in exhibit.rows] == ["0 %", "10 %", "20 %", "30 %", "40 %", "Mean, as judged"]
    row = named(exhibit.rows, "30 %")
    assert row.cells == ("25.0", "50.0", "60.0")  # AdamW first, CEGM last
    assert (row.guess, row.difference, row.interval, row.word) == ("25.0", "+35.0", "+33.0 to +37.0", "")
    assert row.claimed == f"65.7 {ARROW} 75.3 (+9.6)"
    whole = exhibit.rows[-1]
    assert (whole.cells, whole.difference, whole.interval) == (("25.0", "50.0", "70.0"), "+45.0", "+40.0 to +50.0")
    assert (whole.word, whole.whole, whole.claimed) == ("better", True, "")
    assert exhibit.rivals == ["CEGM minus Muon: +20.0 percentage points (+15.0 to +25.0), no evidence."]
    assert [figure.title for figure in exhibit.figures] == ["Right answers by noise"]


def test_rows_with_too_few_seeds_for_an_interval_have_every_seed() -> None:
    verdict = with_few_seeds(judged_on([axis("noise", WORDS, noise())]), (0.02, -0.02))
    exhibit = next(one for one in exhibits(folder_of(verdict))[0] if one.claim.place == "Table III")
    assert (named(exhibit.rows, "30 %").difference, named(exhibit.rows, "30 %").interval) == ("+35.0", "+37.0, +33.0")
    assert exhibit.rows[-1].interval == "+47.0, +43.0"
    assert exhibit.rivals == ["CEGM minus Muon: +20.0 percentage points (by seed +22.0, +18.0), no evidence."]


def test_without_adamw_muon_stands_in_the_place_of_the_baseline() -> None:
    rivals = {"muon": "better", "normuon": "no evidence", "soap": "no evidence"}
    values = {"cegm": 0.9, "muon": 0.25, "normuon": 0.5, "soap": 0.75}
    folder = folder_of(judged_on([axis("noise", rivals, [("", 0.0, 0.25, values)])], rivals))
    assert columns(folder) == ["Muon", "SOAP", "NorMuon", "CEGM"]
    (exhibit,), _ = exhibits(folder)
    whole = exhibit.rows[-1]
    assert (whole.cells, whole.difference, whole.word) == (("25.0", "75.0", "50.0", "90.0"), "+65.0", "better")
    assert [text.split(":")[0] for text in exhibit.rivals] == ["CEGM minus NorMuon", "CEGM minus SOAP"]


def test_real_forms_stand_in_the_rows_of_the_paper() -> None:
    exhibit = shown("Table III", [axis("noise", WORDS, noise("babi-qa1") + noise("babi-qa2"))])
    own = [row for row in exhibit.rows if row.name == "20 %"]
    assert [(row.part, row.span, bool(row.claimed)) for row in own] == [("babi-qa1", 2, True), ("babi-qa2", 0, False)]
    assert exhibit.columns == ("Altered words", "Part")
    assert [figure.title for figure in exhibit.figures] == [f"Right answers by noise: babi-qa{task}" for task in (1, 2)]


def test_a_level_that_was_not_measured_keeps_its_claim() -> None:
    levels = [("", float(length), 0.25, means(0.5)) for length in (512, 1024, 300)]
    exhibit = shown("Table II", [axis("retention", WORDS, levels)])
    assert named(exhibit.rows, "8,192").cells == (DASH, DASH, DASH)
    assert named(exhibit.rows, "8,192").claimed == f"54.2 {ARROW} 72.9 (+18.7)"
    assert named(exhibit.rows, "300").cells == ("25.0", "50.0", "50.0")
    assert not named(exhibit.rows, "300").claimed


def table_i(names: tuple[str, ...]) -> Exhibit:
    values = dict(zip(("ambiguity", "consistency", "reasoning", "disambiguation"), (0.3, 0.4, 0.5, 0.8), strict=True))
    return shown("Table I", [axis(name, WORDS, [("", 0.0, 0.25, means(values[name]))]) for name in names])


def test_the_average_of_table_i_has_no_word() -> None:
    exhibit = table_i(("ambiguity", "consistency", "reasoning", "disambiguation"))
    assert named(exhibit.rows, "Long-form reasoning").word == "better"
    average = exhibit.rows[-1]
    assert (average.name, average.cells, average.difference) == ("Overall average", ("25.0", "50.0", "50.0"), "+25.0")
    assert (average.interval, average.word) == (DASH, "")


def test_an_average_needs_all_four() -> None:
    exhibit = table_i(("ambiguity", "consistency", "reasoning"))
    assert exhibit.rows[-1].cells == (DASH, DASH, DASH)
    assert exhibit.rows[-1].difference == DASH
    assert named(exhibit.rows, "Contextual disambiguation").cells == (DASH, DASH, DASH)
    assert exhibit.notes == ["disambiguation was not measured: it is not among the axes of this comparison"]


def test_parts_of_a_real_axis_of_table_i_are_means_over_their_levels() -> None:
    levels = [("wsc", 0.0, 0.5, means(0.6)), ("gap", 0.0, 0.5, means(0.4)), ("gap", 1.0, 0.5, means(0.2))]
    exhibit = shown("Table I", [axis("ambiguity", WORDS, levels)])
    gap = named(exhibit.rows, "Ambiguity resolution", "gap")
    assert (gap.cells[-1], gap.difference, gap.interval) == ("30.0", "+5.0", DASH)
    assert named(exhibit.rows, "Ambiguity resolution", "mean").span == 3


def domains() -> Any:
    levels: list[tuple[str, float, float | None, dict[str, float]]] = [
        ("technical", step, None, means(2 - step / 100, 2, 2.5)) for step in (0.0, 50.0, 200.0)
    ]
    levels += [("home after technical", step, None, means(1 + step / 100, 1, 1 + step / 50)) for step in (0.0, 50.0)]
    levels.append(("control: bytes of technical", 0.0, None, means(4.5, 4.5, 4.5)))
    return axis("domains", WORDS, levels, unit="bits per byte", better="lower")


def test_table_iv_is_in_bits_with_forgetting_folded_away() -> None:
    exhibit = shown("Table IV", [domains()])
    row = named(exhibit.rows, "Technical documents", "50")
    assert (row.guess, row.cells, row.difference) == ("4.500", ("2.500", "2.000", "1.500"), f"{MINUS}1.0000")
    assert exhibit.unit == "bits/byte"
    assert "LOWER is better" in exhibit.claim.ours
    assert named(exhibit.rows, "Legal texts").cells == (DASH, DASH, DASH)
    (lost,) = exhibit.details
    assert (lost.part, lost.cells, lost.difference) == ("50", ("1.000", "0.000", "0.500"), f"{MINUS}0.5000")


def test_figure_2_gives_costs_per_right_answer() -> None:
    levels = [("", float(depth), 0.25, means(0.5)) for depth in (1, 2)]
    costs = {"cegm": {"seconds": 0.0123, "tokens": 2312.4}, "muon": {"seconds": None, "tokens": None}}
    exhibit = shown("Figure 2", [axis("efficiency", WORDS, levels)], cost_per_correct=costs)
    assert [(row.name, row.cells) for row in exhibit.rows[1:]] == [
        ("Time per right answer", (DASH, DASH, "0.012 s")),
        ("Tokens per right answer", (DASH, DASH, "2,312 tokens")),
    ], "the column is headed by percent, so other units stand in the cell"
    assert [row.name for row in exhibit.details] == ["1", "2"]


def test_figure_3_leaves_controls_to_the_chart() -> None:
    levels = [("model", step, None, means(1 / step)) for step in (1.0, 2.0)]
    levels += [("control: identity model", step, None, means(1.0, 1.0, 1.0)) for step in (1.0, 2.0)]
    exhibit = shown("Figure 3", [axis("drift", WORDS, levels, unit="similarity")])
    assert [(row.name, row.cells[-1]) for row in exhibit.rows] == [
        ("Mean, as judged", "0.750"),
        ("After 2 rewrites", "0.500"),
    ]
    (figure,) = exhibit.figures
    assert "identity" in json.dumps(figure.chart)
    assert "identity model" not in json.dumps(figure.chart)


def test_figure_4_counts_misses() -> None:
    steps, _ = axis("steps_to_target", WORDS, unit="steps", better="lower", effects={"muon": -10, "adamw": -40})
    values: dict[str, list[float | None]] = {"cegm": [40, 60], "muon": [80, None], "adamw": [None, None]}
    steps["methods"] = {m: {"mean": None, "values": dict(enumerate(own))} for m, own in values.items()}
    steps["family"] = "exploratory"
    curves = {
        **{"cegm": {"curve": [[40, 0.5], [60, 1.0]], "median": 40, "reached": 2, "runs": 2}},
        **{"muon": {"curve": [[80, 0.5]], "median": 80, "reached": 1, "runs": 2}},
        **{"adamw": {"curve": [], "median": None, "reached": 0, "runs": 2}},
    }
    survival = {"unit": "steps", "horizon": 100, "methods": curves}
    exhibit = shown("Figure 4", [(steps, [])], survival=survival)
    assert [row.cells for row in exhibit.rows] == [
        ("2 of 2 missed", "1 of 2 missed", "50"),
        ("not reached", "80", "40"),
        (DASH, "80 to 80", "40 to 60"),
        ("0 of 2", "1 of 2", "2 of 2"),
    ]
    assert exhibit.rows[0].word == "better"
    assert [figure.title for figure in exhibit.figures] == [
        "Runs that reached the target, by step",
        "Steps needed, every seed",
    ]
    del curves["muon"]
    assert shown("Figure 4", [(steps, [])], survival=survival).rows[1].cells == ("not reached", DASH, "40")
    assert [row.name for row in shown("Figure 4", [(steps, [])]).rows][1].startswith("Fewest and most")


def test_figure_5_sums_up_wrong_steps() -> None:
    levels = [(mode, float(step), 0.25, means(0.75)) for mode in ("free", "forced") for step in range(1, 11)]
    exhibit = shown("Figure 5", [axis("steps", WORDS, levels)])
    free = exhibit.rows[1]
    assert (free.guess, free.difference) == ("7.50 steps", f"{MINUS}5.00 steps")
    assert free.cells == ("7.50 steps", "5.00 steps", "2.50 steps")
    assert len(exhibit.figures) == 2


def test_what_was_not_measured_is_listed_with_its_reason() -> None:
    _, missing = exhibits(folder_of(judged_on([]), {"steps": {"reason": "no public set"}}))
    reasons = {claim.place: why for claim, why in missing}
    assert reasons["Figure 5"] == "no public set"
    assert reasons["Table V"] == "it is not among the axes of this comparison"
    assert reasons["Figure 4"] == "AdamW has no finished run that sets a target"
    assert len(reasons) == 10


def test_a_method_alone_is_shown_without_differences() -> None:
    verdict = judged_on([axis("noise", WORDS, [("", 0.0, 0.25, {"cegm": 0.5, "muon": 0.5, "adamw": 0.5})])])
    verdict |= {"methods": ["cegm"], "measures": [{**m, "pairs": []} for m in verdict["measures"]]}
    folder = folder_of(verdict)
    (exhibit,), _ = exhibits(folder)
    assert exhibit.rows[-1].cells == ("50.0",)
    assert exhibit.rows[-1].difference == DASH
    assert columns(folder) == ["CEGM"]


@pytest.fixture(scope="module")
def folder(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made comparison with three axes more."""
    path = tmp_path_factory.mktemp("examined") / "comparison"
    shutil.copytree(comparison, path)
    verdict = json.loads((path / "verdict.json").read_text())
    for measure, levels in (
        axis("noise", WORDS, noise()),
        domains(),
        axis("coherence", WORDS, [("mixed", 0.0, 0.3, means(0.4))]),
    ):
        measure["pairs"][0]["mcnemar"] = [{"seed": 1, "first_only": 1234, "second_only": 7, "p": 0.0001}]
        verdict["measures"].insert(1, measure)
        verdict["axes"][measure["name"]] = levels
    (path / "verdict.json").write_text(json.dumps(verdict))
    return path


def test_the_page_shows_all_of_them_with_claims_in_grey(folder: Path) -> None:
    page = Page(report.write(folder))
    assert {"table-ii", "table-iii", "figure-4", "table-iv", "table-v"} <= page.ids()
    assert f'<td class="claimed">54.2 {ARROW} 72.9 (+18.7)</td>' in page.text
    assert "it was not measured here" in page.words
    assert f"CEGM {MINUS} AdamW" in page.words
    assert page.words.index("Not measured") > page.words.index("Table V: Embedding coherence")
    assert "1,234" in page.words.split("McNemar")[1]
    chance = [row for row in page.rows("Right answers by noise") if row.get("label") == "chance"]
    assert {row["mean"] for row in chance} == {0.25}


def test_folders_from_before_the_axes_still_draw(folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    verdict = json.loads((old / "verdict.json").read_text())
    del verdict["axes"]
    (old / "verdict.json").write_text(json.dumps(verdict))
    page = Page(report.write(old))
    assert "Mean, as judged" in page.words
    assert page.rows("Right answers by length")

"""Fronts on the page and in the terminal: every rate a mark, every share a cell, and sentences that go no further than the words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cegm.lab import report
from cegm.lab.compare.front_verdict import judge_fronts
from cegm.lab.report import front_chart
from cegm.lab.report.runs import read
from cegm.lab.report.words import MINUS, NONE, TIMES
from fronts import BEFORE, RATES, endings
from pages import Page


def made(**ends: Any) -> dict[str, Any]:
    """A `front.json` whose novels a card has seen."""
    found = judge_fronts(endings(**ends), dict.fromkeys(range(ends.get("seeds", 2)), BEFORE))
    for measure in found["measures"]:
        measure["seen"] = ["cegm"] if measure["name"] == "novels" else []
    return found


@pytest.fixture(scope="module")
def folder(comparison: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = shutil.copytree(comparison, tmp_path_factory.mktemp("front") / "copy")
    (copy / "front.json").write_text(json.dumps(made(failed=(("adamw", 4, 0), ("adamw", 4, 1)))))
    return copy


def test_the_first_screen_has_a_chart_per_measure_and_a_line_per_method_through_its_rates(folder: Path) -> None:
    page = Page(report.write(folder))
    for title in ("the model's own text", "novels", "wiki", "LAMBADA"):
        rows = [row for row in page.rows(f"Forgotten: {title}") if "rate" in row]
        ends = {(row["method"], row["rate"]) for row in rows}
        assert ends == {("CEGM", rate) for rate in RATES} | {("AdamW", rate) for rate in RATES[:-1]}
    own = {(r["method"], r["rate"]): r for r in page.rows("Forgotten: the model's own text") if "rate" in r}
    assert own["AdamW", 1e-4]["new"] == pytest.approx(2.5)
    assert own["AdamW", 1e-4]["forgotten"] == pytest.approx(0.1 * 1.5 * 1.05)  # the mean of two seeds
    assert page.text.index('id="verdict"') < page.text.index('id="front"') < page.text.index('id="sentences"')


def test_nothing_on_the_page_sets_one_rate_beside_one_but_the_table_that_says_so(folder: Path) -> None:
    page = Page(report.write(folder))
    kinds = {sentence.kind for sentence in report.sentences.sentences(read(folder))}
    assert not kinds & {"loss", "better", "worse"}
    assert "Every method at the middle one of its learning rates only" in page.words
    assert "tile" not in {attributes.get("class") for _, attributes in page.tags}


def test_terminal_and_page_have_the_same_numbers(folder: Path) -> None:
    first, second, third, fourth = front_chart.rows(made())
    assert (first["title"], first["method"]) == ("the model's own text", "CEGM")
    assert first["cells"] == [(f"0.500 {TIMES}", "0.500, 0.500")] * 4
    assert second["title"] == "novels (in the card of CEGM)"
    assert third["cells"][1][0].startswith(MINUS)
    assert fourth["unit"] == "percentage points"
    lines = report.table(folder).splitlines()
    assert lines[0].split("  ")[0] == "method"
    assert max(map(len, lines[: lines.index("")])) <= 110
    page = Page(report.write(folder))
    for row in front_chart.rows(read(folder).front or {}):
        for size, spread in row["cells"]:
            assert size in page.words
            assert spread in page.words
            assert size in "\n".join(lines)


def test_an_interval_takes_the_place_of_seeds_from_five_on() -> None:
    assert front_chart.rows(made(seeds=5))[0]["cells"][0] == (f"0.500 {TIMES}", "0.500 to 0.500")


def test_a_rate_that_failed_everywhere_is_dashes_and_a_share_beyond_the_rates_is_one(folder: Path) -> None:
    failed = tuple(("cegm", place, seed) for place in (0, 4) for seed in (0, 1))
    front = made(failed=failed)
    rates = {(row[0], row[1]): row[2:] for row in front_chart.rate_rows(front)}
    assert rates["CEGM", "1e-05"] == [NONE] * 5
    assert rates["CEGM", "3e-05"][0] == "3.2000"
    assert [size for size, _ in front_chart.rows(front)[0]["cells"]] == [NONE, *[f"0.500 {TIMES}"] * 3]


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.5, f"CEGM forgets less than AdamW of the model's own text (0.500 {TIMES}, by seed 0.500, 0.500)."),
        (2.0, f"CEGM forgets more than AdamW of the model's own text (2.000 {TIMES}, by seed 2.000, 2.000)."),
        (1.0, f"there is no evidence of a difference from AdamW in forgetting the model's own text (1.000 {TIMES}, by seed 1.000, 1.000)."),
    ],
)  # fmt: skip
def test_the_headline_says_no_more_than_the_word_at_half_the_gain(share: float, said: str) -> None:
    text = front_chart.headline(made(share=share))
    start = "At the new loss that takes 50 % of AdamW's gain, in a screening with 2 seeds, "
    assert text == start + said


def test_a_sentence_for_each_share_that_can_be_read_names_every_measure() -> None:
    found = front_chart.sentences(made())
    assert [text.split(" %")[0].split()[-1] for text in found] == ["25", "50", "75", "90"]
    assert all(title in found[0] for title in ("the model's own text", "novels", "wiki", "LAMBADA"))
    assert "screening" not in front_chart.sentences(made(seeds=8))[0]


def test_where_nothing_can_be_read_one_sentence_says_so_and_names_the_remedy() -> None:
    nobody = tuple(("cegm", place, seed) for place in range(5) for seed in (0, 1))
    (text,) = front_chart.sentences(made(failed=nobody))
    assert text == front_chart.headline(made(failed=nobody))
    assert text.startswith("Nothing can be said of CEGM: ")
    assert text.endswith("Give others with --rates.")


def test_the_reference_alone_has_a_front_and_nobody_beside_it() -> None:
    alone = judge_fronts([end for end in endings() if end["method"] == "adamw"], {0: BEFORE, 1: BEFORE})
    assert front_chart.headline(alone).startswith("AdamW has nobody beside it")
    assert front_chart.rows(alone) == []


def test_a_damaged_front_is_named_with_its_remedy(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "front.json").write_text("{}")
    with pytest.raises(ValueError, match=r"front\.json lacks .*; compare again to write it anew"):
        read(copy)

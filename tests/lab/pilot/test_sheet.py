"""The page of a pilot: twelve lines in two languages, the numbers of the verdict, one sheet of paper each, and nothing of the user's as HTML."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cegm.lab.pilot.sheet import Writing, render
from cegm.pages import MINUS
from pilots import POINTS, example, fix_of, verdict

CHROMIUM = shutil.which("chromium")


def page(config=None, found=None):
    config = config or example()
    return render(config, found or verdict(), fix_of(config), "ab" * 32, "cd" * 32)


def sheets(text):
    return dict(re.findall(r'<article lang="(\w+)">(.*?)</article>', text, flags=re.DOTALL))


def test_there_are_twelve_numbered_lines_in_each_language() -> None:
    for sheet in sheets(page()).values():
        assert [int(number) for number in re.findall(r"<tr><th>(\d+) ", sheet)] == list(range(1, 13))
    assert list(sheets(page())) == ["ja", "en"]


def test_the_worked_example_stands_on_both_sheets() -> None:
    found = sheets(page())
    for text in (
        "+0.40ポイント",
        f"{MINUS}0.61〜+1.41ポイント",
        "22,000円",
        f"{MINUS}220,855円〜264,855円",
        "58.2%",
        "19,291円",
        "保留",
    ):
        assert text in found["ja"]
    for text in ("+0.40 points", "22,000 yen", f"{MINUS}220,855 yen to 264,855 yen", "58.2 %", "19,291 yen", "HOLD"):
        assert text in found["en"]


@pytest.mark.parametrize(("shift", "ja", "en"), [(0.03, "採用", "GO"), (-0.03, "撤退", "STOP"), (0.0, "保留", "HOLD")])
def test_each_verdict_has_its_word_and_its_sentence(shift: float, ja: str, en: str) -> None:
    found = sheets(page(found=verdict([point + shift for point in POINTS])))
    assert f'<span class="word {en}">{ja}</span>' in found["ja"]
    assert f'<span class="word {en}">{en}</span>' in found["en"]


def test_weights_that_are_a_stop_by_themselves_do_not_ship_even_where_the_method_is_a_go() -> None:
    found = verdict([point + 0.03 for point in POINTS])
    assert "Shadow, then 5, 25 and 50 %" in sheets(page(found=found))["en"]
    found.checkpoint.decision = verdict([point - 0.03 for point in POINTS]).decision
    assert "These weights do not ship" in sheets(page(found=found))["en"]
    assert "この重みは導入せず" in sheets(page(found=found))["ja"]


def test_what_is_not_given_is_said_not_to_be_provided() -> None:
    found = sheets(page(example(applicant="", owner="", data_licence="")))
    assert found["ja"].count("記載なし") == 3
    assert found["en"].count("not provided") == 3


def test_nothing_of_the_user_becomes_html_and_nothing_is_loaded() -> None:
    evil = '<script>alert("x")</script>&'
    config = example(title=evil, applicant=evil, approver=evil, owner=evil, withdrawal=evil, currency=evil)
    text = page(config)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"https?:|src=|href=|url\(|@import", text)


def test_numbers_are_written_as_people_read_them() -> None:
    japanese, english, dollars = Writing("ja", "JPY"), Writing("en", "JPY"), Writing("en", "USD")
    assert (japanese.money(-1234.5), english.money(0.1), dollars.money(12.5)) == (
        f"{MINUS}1,234円",
        "0.10 yen",
        "12.50 USD",
    )
    assert (english.money(-1e-9), english.points(-0.00001), english.points(0.0)) == (
        "0 yen",
        "0.00 points",
        "0.00 points",
    )
    assert (japanese.probability(0.99999), english.probability(0.0)) == ("99.9%以上", "at most 0.1 %")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.parametrize("task", ["faq", "summaries"])
def test_each_language_prints_on_exactly_one_sheet_of_a4(task: str, tmp_path: Path) -> None:
    long = "長い件名" * 8
    config = example(task=task, title=long, withdrawal="撤回の条件を長く書いた文。" * 8, owner="担当部署の長い名前" * 4)
    (tmp_path / "page.html").write_text(page(config), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    subprocess.run(
        [str(CHROMIUM), *flags, f"--print-to-pdf={tmp_path / 'page.pdf'}", (tmp_path / "page.html").as_uri()],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    content = (tmp_path / "page.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page[^s]", content)) == 2
    boxes = [box.split() for box in re.findall(rb"/MediaBox\s*\[([^\]]*)\]", content)]
    assert {(round(float(width)), round(float(height))) for _, _, width, height in boxes} == {(595, 842)}

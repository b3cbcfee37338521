"""Every number that README.md and docs/results.md show for a measurement is what the committed logs give; options are those of the code."""

from __future__ import annotations

import re
from functools import cache

import pytest

import logs
import results_page
from logs import MINUS
from results_page import NUMBER, PAGES, RESULTS, TABLE, renewed

INTERVAL = re.compile(rf"\[[+{MINUS}]?[\d.]+,\s[+{MINUS}]?[\d.]+\]")


@cache
def made() -> tuple[dict[str, str], dict[str, str]]:
    return results_page.made_tables(), results_page.made_numbers()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_holds_what_the_logs_give(page):
    text = page.read_text(encoding="utf-8")
    assert renewed(text, *made()) == text, "make results"


def test_everything_that_is_made_is_shown():
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = {found["name"] for pattern in (TABLE, NUMBER) for found in pattern.finditer(shown)}
    assert names == {*made()[0], *made()[1]}


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.name)
def test_no_interval_and_no_table_of_numbers_is_written_by_hand(page):
    by_hand = NUMBER.sub("", TABLE.sub("", page.read_text(encoding="utf-8")))
    assert not INTERVAL.findall(by_hand)
    assert not [line for line in by_hand.splitlines() if line.startswith("|") and re.search(r"\d\.\d", line)]


def test_other_logs_give_another_table_and_other_numbers():
    page = "<!-- a: begin -->\nold\n<!-- a: end -->\nIt took +1.5 [1.0,\n2.0]<!-- b.c --> steps, **≤ 2<!-- d -->**.\n"
    new = renewed(page, {"a": "| x |"}, {"b.c": f"{MINUS}0.5 [{MINUS}1.0, 0.0]", "d": "3"})
    assert (
        new
        == f"<!-- a: begin -->\n| x |\n<!-- a: end -->\nIt took {MINUS}0.5 [{MINUS}1.0, 0.0]<!-- b.c --> steps, **3<!-- d -->**.\n"
    )
    assert renewed(new, {"a": "| x |"}, {"b.c": f"{MINUS}0.5 [{MINUS}1.0, 0.0]", "d": "3"}) == new


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- a: begin -->\n<!-- a: end -->", "nothing makes 'a'"),
        ("5<!-- a -->", "nothing makes 'a'"),
        ("many<!-- a -->", "behind no number"),
    ],
)
def test_a_marker_that_means_nothing_is_refused(page, message):
    with pytest.raises(ValueError, match=message):
        renewed(page, {"b": ""}, {"b": "1"})


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (-0.0004, "+.3f", "+0.000"),
        (-0.5, "+.1f", f"{MINUS}0.5"),
        (0.25, ".2f", "0.25"),
        (-1234.5, ",.0f", f"{MINUS}1,234"),
    ],
)
def test_a_number_has_a_minus_sign_unless_it_rounds_to_zero(value, form, shown):
    assert logs.number(value, form) == shown


def test_an_effect_without_an_interval_is_shown_alone():
    assert logs.estimate(-0.5, None, "+.1f") == f"{MINUS}0.5"
    assert logs.estimate(0.99, (0.9, -1.0), ".2f") == f"0.99 [0.90, {MINUS}1.00]"


def test_the_pages_are_this_repository():
    assert all(page.is_relative_to(results_page.ROOT) and page.exists() for page in PAGES)

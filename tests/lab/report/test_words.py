"""Sentences are plain text that says what it is given; pages escape whatever comes from a template by name or by string."""

from __future__ import annotations

import jinja2
import pytest

from cegm.lab.report import words
from cegm.lab.report.words import TEMPLATES, told

HOSTILE = "<b>&'\""
MINUS = "\N{MINUS SIGN}"


def test_a_sentence_says_its_data_as_they_are() -> None:
    assert told("sentences", "not_taken", axis=HOSTILE, reason="none") == f"{HOSTILE} was not measured: none"


def test_a_page_escapes_a_sentence_once() -> None:
    sentence = told("sentences", "not_taken", axis=HOSTILE, reason="none")
    page = TEMPLATES.from_string("{{ sentence }}").render(sentence=sentence)
    assert page == "&lt;b&gt;&amp;&#39;&#34; was not measured: none"


def test_a_sentence_without_its_number_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        told("sentences", "refused")


def test_every_template_can_be_read() -> None:
    names = [name for name in TEMPLATES.list_templates() if name.endswith(".j2")]
    assert len(names) > 10
    for name in names:
        TEMPLATES.get_template(name)


@pytest.mark.parametrize(
    ("measure", "number", "shown"),
    [
        ("bits_per_byte", 0.62821, "0.6282"),
        ("retention", 0.755, "75.5 %"),
        ("step_time", 0.1505, "150.5 ms"),
        ("memory", 633.4 * 2**20, "633.4 MiB"),
        ("steps_to_target", 1234.4, "1,234"),
        ("memory", None, "\N{EN DASH}"),
    ],
)
def test_a_value_has_the_unit_of_its_measure(measure: str, number: float | None, shown: str) -> None:
    assert words.value(measure, number) == shown


def test_what_is_no_number_is_a_dash() -> None:
    assert [words.shown(value, ".1f") for value in (None, "x", float("nan"), True, 2)] == ["\N{EN DASH}"] * 4 + ["2.0"]
    assert words.mean([1, None, "x", 2]) == 1.5
    assert words.mean([]) is None


def test_a_sign_stands_before_all_but_zero() -> None:
    assert [words.signed(number, 1) for number in (1234.5, -0.04, -0.06, 0.0)] == [
        "+1,234.5",
        "0.0",
        f"{MINUS}0.1",
        "0.0",
    ]

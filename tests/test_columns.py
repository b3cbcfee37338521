"""Aligned columns."""

import pytest

from cegm.columns import aligned


def test_words_stand_left_and_numbers_right():
    assert aligned([("method", "loss", "word"), ("CEGM", "1.5", "better"), ("AdamW", "12.5", "no")], {0, 2}) == [
        "method  loss  word",
        "CEGM     1.5  better",
        "AdamW   12.5  no",
    ]


def test_nothing_gives_nothing():
    assert aligned([], {0}) == []


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        aligned([("a", "b"), ("c",)], {0})

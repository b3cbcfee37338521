"""Cuts of texts of all scripts: near where they are wanted, between words or between what a reader takes for one character."""

from __future__ import annotations

import random
import unicodedata
from itertools import pairwise

import pytest

pytest.importorskip("trl")

from cegm.lab.train.cutting import NEAR, cut_after, cut_before
from cegm.lab.train.rows import _pieces

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAGS = "\U0001f1ef\U0001f1f5"
HAND = "\U0001f44b\U0001f3fd"
SCRIPTS = {
    "chinese": "天地玄黄宇宙洪荒",
    "japanese": "がぎぐげごパピプ\u304b\u3099",  # the last one in two parts
    "thai": "ที่นี่กำลังสวัสดี",
    "hindi": "क्षत्रियहिन्दी",
    "hangul": "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "emoji": FAMILY + FLAGS + HAND,
    "combining": "e\u0301a\u0308o\u0302\u0323",
}


def test_a_word_is_never_cut_where_there_are_words() -> None:
    text = "one two  three\nfour " * 40
    for wanted in range(1, len(text)):
        cut = cut_after(text, wanted)
        assert cut >= wanted
        assert cut == len(text) or text[cut].isspace()
        assert not any(letter.isspace() for letter in text[wanted:cut])


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_spaces_the_cut_is_near_and_splits_nothing_that_belongs_together(script: str) -> None:
    import regex

    text = SCRIPTS[script] * 400
    ends = {found.end() for found in regex.finditer(r"\X", text)}
    for wanted in random.Random(1).sample(range(NEAR, len(text) - 2 * NEAR), 60):
        cut = cut_after(text, wanted)
        assert wanted <= cut < wanted + 12
        assert cut in ends
        assert not unicodedata.category(text[cut]).startswith("M")
        assert "\u200d" not in (text[cut - 1], text[cut])


def test_white_space_before_is_better_than_none() -> None:
    text = "語" * 500 + "\n" + "語" * 100 + "x" * 1000
    assert cut_after(text, 600) == 500
    assert cut_after(text, 700) == 500
    assert cut_after(text, 500 + NEAR + 10) == 500 + NEAR + 10


def test_marks_without_end_do_not_make_it_wait() -> None:
    assert 50_000 <= cut_after("e" + "\u0301" * 100_000, 50_000) <= 50_000 + NEAR
    assert cut_before("ab", 1) == 1


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("spaced", [False, True])
def test_pieces_are_the_text(script: str, spaced: bool) -> None:
    text = (SCRIPTS[script] + " " * spaced) * 300
    documents = [text, "short", text[:700]]
    pieces = list(_pieces(documents, 512))
    assert "".join(piece.text for piece in pieces) == "".join(documents)
    assert sum(piece.begins for piece in pieces) == sum(piece.ends for piece in pieces) == 3
    assert max(len(piece.text) for piece in pieces) <= 512 + NEAR
    assert all(after.begins == before.ends for before, after in pairwise(pieces))

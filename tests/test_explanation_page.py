"""The page of an explanation: complete, small, offline, escaped, and right about signs and shares."""

from __future__ import annotations

import base64
import re
import struct
import sys
import zlib
from html.parser import HTMLParser

import pytest
import torch

from cegm import explanation_page as page
from cegm.explanation import AlignedText, Explanation
from cegm.pages import MINUS

HOSTILE = "<script>alert('token')</script>"


def explained(tokens, scores, layers=None, left_out=None):
    scores = torch.tensor(scores)
    layers = layers or tuple(f"layer {i}" for i in range(len(scores)))
    return Explanation((AlignedText(tuple(tokens), scores),), layers, 1.25, left_out or {})


class Page(HTMLParser):
    """Tags with attributes, marked tokens with their class, and cells of tables."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.marks, self.cells, self.words = [], [], [], ""
        self._sample = self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "p":
            self._sample = attrs.get("class") == "sample"
        if tag == "span" and self._sample:
            self.marks.append([attrs.get("class", ""), attrs["title"], ""])
        if tag == "td":
            self.cells.append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag == "p":
            self._sample = False
        if tag == "td":
            self._cell = False

    def handle_data(self, data):
        self.words += data
        if self._sample and self.marks and not self.marks[-1][2]:
            self.marks[-1][2] = data
        if self._cell:
            self.cells[-1] += data


def pixels(address):
    """The palette colours of a strip, row by row, by the PNG standard."""
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, depth, colours, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (height, depth, colours) == (2, 8, 3)
    palette = [tuple(chunks[b"PLTE"][i : i + 3]) for i in range(0, len(chunks[b"PLTE"]), 3)]
    raw = zlib.decompress(chunks[b"IDAT"])
    rows = [raw[i * (width + 1) : (i + 1) * (width + 1)] for i in range(height)]
    assert all(row[0] == 0 for row in rows)
    return [[palette[index] for index in row[1:]] for row in rows]


WHITE = (255, 255, 255)


def test_tokens_are_marked_by_sign_and_size():
    drawn = Page(
        page.render(explained(["the", " cat", " sat", " down"], [[4.0, -1.0, 0.0, -4.0], [0.0, 0.0, 0.0, 8.0]]))
    )
    assert [(look, text) for look, _, text in drawn.marks] == [
        ("p4", "the"),
        ("n2", "cat"),
        ("", "sat"),
        ("p4", "down"),
    ]
    assert [title for _, title, _ in drawn.marks] == [
        "token 1: +4.00e+00, +44.4 % of the text",
        f"token 2: {MINUS}1.00e+00, {MINUS}11.1 % of the text",
        "token 3: +0.00e+00, +0.0 % of the text",
        "token 4: +4.00e+00, +44.4 % of the text",
    ]
    assert "The balance of the text is +77.8 %" in drawn.words


def test_strongest_tokens_stand_among_their_neighbours_with_their_sign():
    drawn = Page(page.render(explained(["a", " b", " c"], [[1.0, -3.0, 2.0]])))
    assert drawn.cells[:12] == [
        *("a b c", "3", "+2.00e+00", "+33.3 %"),
        *("a b", "1", "+1.00e+00", "+16.7 %"),
        *("a b c", "2", f"{MINUS}3.00e+00", f"{MINUS}50.0 %"),
    ]


def test_rows_of_weights_show_size_balance_and_strongest_token():
    drawn = Page(page.render(explained(["a", " b"], [[3.0, -1.0], [0.0, 4.0]], ("first", "second"))))
    cells = [cell for cell in drawn.cells[-10:] if cell]
    assert cells == ["first", "50.0 %", "+50.0 %", "a (1)", "second", "50.0 %", "+100.0 %", "b (2)"]


def test_strips_put_along_above_and_against_below():
    above, below = pixels(page._strip([4.0, -1.0, 0.0, -4.0, 1.0]))
    assert above[0] == page.ALONG
    assert below[3] == page.AGAINST
    assert above[1:4] == [WHITE] * 3
    assert [below[i] for i in (0, 2, 4)] == [WHITE] * 3
    for found, full in ((above[4], page.ALONG), (below[1], page.AGAINST)):  # a quarter of the score, half of the depth
        assert all(abs(255 - c - (255 - f) / 2) <= 1 for c, f in zip(found, full, strict=True))


def test_a_strip_of_a_long_text_keeps_the_strongest_token_of_either_direction():
    scores = [0.0] * (3 * page.MOST_COLUMNS)
    scores[301], scores[302], scores[-1] = 9.0, -9.0, 9.0
    above, below = pixels(page._strip(scores))
    assert len(above) == len(below) == page.MOST_COLUMNS
    assert {i for i, colour in enumerate(above) if colour != WHITE} == {100, page.MOST_COLUMNS - 1}
    assert {i for i, colour in enumerate(below) if colour != WHITE} == {100}
    assert (above[100], below[100]) == (page.ALONG, page.AGAINST)


@pytest.mark.parametrize("scores", [[[0.0, 0.0]], [[float("nan"), 1.0]], [[float("inf"), 1.0]]])
def test_scores_without_size_or_that_are_not_finite_still_give_a_page(scores):
    drawn = Page(page.render(explained(["a", " b"], scores)))
    assert len(drawn.marks) == 2


def test_everything_from_data_is_escaped():
    text = page.render(
        explained(["a", HOSTILE, "'\"&"], [[1.0, 2.0, -1.0]], (HOSTILE,), {HOSTILE: HOSTILE + "why"}),
    )
    drawn = Page(text)
    assert "<script" not in text
    assert drawn.marks[1][2] == HOSTILE
    assert drawn.marks[2][2] == "'\"&"
    assert HOSTILE + "why" in drawn.words


def test_page_is_offline_and_runs_nothing():
    text = page.render(explained(["a", " b"], [[1.0, -2.0]]))
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert not re.search(r"https?://|url\(|@import", text)
    drawn = Page(text)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in drawn.tags}
    assert all(a["src"].startswith("data:image/png;base64,") for tag, a in drawn.tags if tag == "img")


def test_ids_do_not_run_into_each_other_and_line_breaks_show():
    assert Page(page.render(explained(["1", "22", "3"], [[1.0, 2.0, 0.0]]))).cells[0] == "1 22 3"
    assert re.sub(r"<[^>]*>", "", sample(["1", "22", "3"])) == " 1 22 3"
    assert re.sub(r"<[^>]*>", "", sample(["one", " two", "\n", "", "s"])) == "one two↵·s"
    assert "<br>" in sample(["one", " two", "\n"])


@pytest.mark.parametrize(
    ("tokens", "lines"),
    [
        (["a", "\n", " b"], ["a↵", " b"]),
        (["a", " b\n"], ["a b↵"]),
        (["a", " b\n\n", " c"], ["a b↵↵", " c"]),
        (["a\r\n", " b"], ["a␍↵", " b"]),
        (["a", "\r", "\n", " b"], ["a␍↵", " b"]),
        (["a\r", " b"], ["a␍ b"]),
        (["\n", " a"], ["↵", " a"]),
    ],
)
def test_a_token_with_a_line_break_ends_its_line_once_and_no_other_token_does(tokens, lines):
    """Marks keep white space as it is, so that no line may break inside one."""
    shown = [re.sub(r"<[^>]*>", "", line) for line in sample(tokens).split("<br>")]
    assert [line for line in shown if line] == lines
    assert "\n" not in sample(tokens)
    assert "\r" not in sample(tokens)


def sample(tokens):
    text = page.render(explained(tokens, [[1.0] * len(tokens)]))
    return re.search(r'<p class="sample">(.*?)</p>', text, re.DOTALL)[1]


def test_left_out_weights_are_listed():
    text = page.render(explained(["a", " b"], [[1.0, -2.0]], left_out={"expert": "fed with 3 vectors"}))
    assert "1 left out" in text
    assert {"expert", "fed with 3 vectors"} <= set(Page(text).cells)
    assert "left out" not in page.render(explained(["a", " b"], [[1.0, -2.0]]))


@pytest.mark.parametrize(
    ("tokens", "marks"), [(2, [1, 2]), (3, [1, 2, 3]), (5, [1, 2, 3, 4, 5]), (101, [1, 26, 51, 76, 101])]
)
def test_marks_of_a_strip_reach_from_the_first_to_the_last_token(tokens, marks):
    assert page._marks(tokens) == marks


def test_a_long_text_through_many_weights_stays_small(tmp_path):
    scores = torch.randn(210, 2000).pow(3)  # seven weights in each of thirty blocks, noise compresses worst
    text = AlignedText(tuple(f" word{i}" for i in range(2000)), scores)
    path = Explanation((text,), tuple(f"model.layers.{i}.mlp.up_proj" for i in range(210)), 3.0, {}).to_html(
        tmp_path / "page.html"
    )
    assert path == tmp_path / "page.html"
    assert path.stat().st_size < 1_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_the_page_needs_nothing_that_torch_does_not_bring(tmp_path, monkeypatch):
    for name in ("vl_convert", "altair", "pandas", "yaml", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("cegm.lab")]:
        monkeypatch.setitem(sys.modules, name, None)
    assert explained(["a", " b"], [[1.0, -2.0]]).to_html(tmp_path / "page.html").stat().st_size

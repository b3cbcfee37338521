"""Markdown and HTML lose their markup and keep their words."""

from __future__ import annotations

import re

import pytest

from cegm.lab.train.markup import strip_html, strip_markdown

BOOK = """---
title: "Cells"
layout: page
---

<div data-type="abstract" markdown="1">
By the end you know:
* what a **cell**{: data-type="term"} is
* why H<sub>2</sub>O & salt matter

</div>

### Size of cells   {: #size}

A line
continues ([Figure 1](#fig1)), `x < y`, a &gt; b.

![A photo](../resources/cell.jpg "Caption"){: #fig1}

  <table summary="sizes"><tbody>
  <tr><td>cell</td><td>10 µm</td></tr>
  </tbody></table>

```
if a < b: pass
```
"""


def test_book_page() -> None:
    assert strip_markdown(BOOK) == (
        "By the end you know:\n\nwhat a cell is\n\nwhy H2O & salt matter\n\nSize of cells\n\n"
        "A line\ncontinues (Figure 1), x < y, a > b.\n\ncell 10 µm\n\nif a < b: pass\n"
    )


def test_plain_words_pass_unchanged() -> None:
    prose = "One sentence.\n\nAnother one, with 2 * 3 = 6 and a - b.\n"
    assert strip_markdown(prose) == prose


@pytest.mark.parametrize(
    "source", ["<script>x()</script>word", "<style>p{}</style>word", "<b>wo</b>rd", "<img alt='a'>word"]
)
def test_html(source: str) -> None:
    assert strip_html(source) == "word"


def test_unclosed_markup_is_not_lost() -> None:
    text = strip_markdown("**bold without end\n\n<p>paragraph without end\n\n[link](without end")
    words = " ".join(re.sub(r"\W+", " ", text).split())
    assert words == "bold without end paragraph without end link without end"

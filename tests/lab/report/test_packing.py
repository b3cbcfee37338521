"""What is packed comes out as it went in."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

from cegm.lab.report.page import compressed, packed
from pages import Page


def test_rows_come_back_and_names_stand_once(tmp_path: Path) -> None:
    rows = [{"layer": f"block.{place % 3}", "step": place, "value": place / 8} for place in range(300)]
    rows[5]["marked"] = True
    chart = {"datasets": {"a": rows, "b": [], "c": [{"at": [1, 2], "length": 3}]}, "layer": [{"mark": "bar"}]}
    text = json.dumps(packed(chart))
    assert text.count('"step"') == 1
    assert len(text) < len(json.dumps(chart)) / 2
    path = tmp_path / "page.html"
    path.write_text(f'<script type="application/json" data-chart="x">{text}</script>', encoding="utf-8")
    found = Page(path).charts["x"]
    assert found["layer"] == chart["layer"]
    assert [{name: cell for name, cell in row.items() if cell is not None} for row in found["datasets"]["a"]] == rows
    assert found["datasets"]["b"] == []
    assert found["datasets"]["c"] == [{"at": [1, 2], "length": 3}]


def test_a_compressed_text_is_the_same_every_time_and_has_no_markup() -> None:
    text = "const end = '</script>';" * 100
    assert compressed(text) == compressed(text)
    assert "<" not in compressed(text)
    assert gzip.decompress(base64.b64decode(compressed(text))).decode() == text

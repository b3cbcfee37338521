"""Reads a written page back."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """Collects what a test wants to know about a page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.text = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.charts: dict[str, dict[str, Any]] = {}
        self.words = ""
        self._block: tuple[str, str | None] = ("", None)
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._block = (tag, dict(attrs).get("data-chart"))

    def handle_data(self, data: str) -> None:
        tag, chart = self._block
        if chart is not None and data.strip():
            self.charts[chart] = json.loads(data, object_hook=_rows)
        elif tag not in ("script", "style"):
            self.words += " " + data

    def handle_endtag(self, tag: str) -> None:
        self._block = ("", None)

    def ids(self) -> set[str | None]:
        return {attributes.get("id") for _, attributes in self.tags}

    def rows(self, start: str) -> list[dict[str, Any]]:
        """Inline data of the chart whose description starts with these words, all layers together."""
        chart = next(one for one in self.charts.values() if one["description"].startswith(start))
        return [row for rows in _values(chart) for row in rows]


def _rows(node: dict[str, Any]) -> Any:
    """Rows of a chart again, which the page has column by column."""
    if node.keys() != {"length", "columns"}:
        return node
    columns = {
        name: [cells["words"][place] for place in cells["at"]] if isinstance(cells, dict) else cells
        for name, cells in node["columns"].items()
    }
    return [{name: cells[row] for name, cells in columns.items()} for row in range(node["length"])]


def _values(node: Any) -> list[list[dict[str, Any]]]:
    if isinstance(node, list):
        return [rows for child in node for rows in _values(child)]
    if not isinstance(node, dict):
        return []
    if "datasets" in node:
        return list(node["datasets"].values())
    return (
        [node["values"]]
        if isinstance(node.get("values"), list) and node["values"][:1] and isinstance(node["values"][0], dict)
        else [rows for child in node.values() for rows in _values(child)]
    )

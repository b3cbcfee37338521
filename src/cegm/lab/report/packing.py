"""What makes a page heavy, made small: the chart library compressed, and the rows of charts column by column."""

from __future__ import annotations

import base64
import gzip
from typing import Any

from cegm.lab.report.folder import Record


def compressed(text: str) -> str:
    """The text as a page carries it for its script to unfold: gzip in base64, the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def packed(chart: Any) -> Any:
    """A chart's specification with the rows of its data sets as columns, each name once instead of once a row."""
    if isinstance(chart, list):
        return [packed(part) for part in chart]
    if not isinstance(chart, dict):
        return chart
    datasets = {name: _columns(rows) for name, rows in chart.get("datasets", {}).items()}
    return {name: datasets if name == "datasets" else packed(part) for name, part in chart.items()}


def _columns(rows: list[Record]) -> Record:
    """Rows as columns; a row that lacks a name has null there."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {"length": len(rows), "columns": {name: _column([row.get(name) for row in rows]) for name in names}}


def _column(cells: list[Any]) -> Any:
    """Cells as they are, but texts as places in the list of those that differ."""
    if not all(isinstance(cell, str) for cell in cells):
        return cells
    places = {word: place for place, word in enumerate(dict.fromkeys(cells))}
    return {"words": list(places), "at": [places[cell] for cell in cells]}

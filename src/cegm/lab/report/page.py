"""Writes `report.html`: one offline page with all charts, drawn from a folder alone.

The chart library (Vega, Vega-Lite and Vega-Embed, bundled by vl-convert, 0.9 MB) stands in the page once, compressed;
each chart is a JSON block that the page's few lines of script hand to it. A content security policy in the page forbids
loading anything from anywhere.
"""

from __future__ import annotations

import base64
import functools
import gzip
import itertools
from pathlib import Path
from typing import Any

import vl_convert

from cegm.lab.report import (
    claims,
    drill_chart,
    exhibits,
    figures,
    front_chart,
    overhead_chart,
    sentences,
    style,
    tables,
    tiles,
)
from cegm.lab.report.judged import judged
from cegm.lab.report.picture import VEGA_LITE
from cegm.lab.report.runs import Folder, Record, read
from cegm.lab.report.words import TEMPLATES
from cegm.pages import save

FILE_NAME = "report.html"


def write(comparison_dir: Path) -> Path:
    """Draws the page of a comparison or run folder into it.

    Args:
        comparison_dir: Comparison or run folder.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: If the folder is neither, or damaged.
    """
    return save(render(read(Path(comparison_dir))), Path(comparison_dir) / FILE_NAME)


def render(folder: Folder) -> str:
    """The page as text."""
    methods, settings = tables.settings(folder)
    shown, missing = exhibits.exhibits(folder)
    return TEMPLATES.get_template("page.html.j2").render(
        title=folder.path.resolve().name,
        folder=folder,
        verdict=judged(folder),
        headline=sentences.headline(folder),
        sentences=sentences.sentences(folder),
        tiles=[] if folder.front else tiles.tiles(folder),
        figures=figures.by_section(folder),
        overhead_rows=overhead_chart.rows(folder.overhead) if folder.overhead else [],
        drill_rows=drill_chart.rows(folder.drill) if folder.drill else [],
        drill_seeds=drill_chart.seeds(folder.drill) if folder.drill else 0,
        front_rows=front_chart.rows(folder.front) if folder.front else [],
        front_headings=front_chart.headings(folder.front) if folder.front else [],
        front_rates=front_chart.rate_rows(folder.front) if folder.front else [],
        method_rows=tables.method_rows(folder),
        setting_methods=methods,
        settings=settings,
        pairing_rows=tables.pairing_rows(folder),
        exhibits=shown,
        missing=missing,
        columns=exhibits.columns(folder),
        source=claims.source(),
        numbers=itertools.count(1),
        next=next,
        library=library(),
        packed=packed,
        config=style.CONFIG,
    )


@functools.cache  # bundling takes seconds
def library() -> str:
    """The chart library as text that the page's script unfolds."""
    return compressed(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE))


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

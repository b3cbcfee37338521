"""A chart with its heading and the one line that explains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt


@dataclass(frozen=True)
class Figure:
    """A chart with the one line that explains it.

    Attributes:
        title: Short heading.
        meaning: One sentence without jargon.
        chart: The Vega-Lite specification.
        wide: Whether it takes the whole width of the page.
    """

    title: str
    meaning: str
    chart: dict[str, Any]
    wide: bool = False


def figure(title: str, meaning: str, chart: Any, height: int | None = 260, wide: bool = False) -> list[Figure]:
    """A figure as wide as its place on the page, or, with panels side by side, as wide as they are; none without a chart."""
    if chart is None:
        return []
    sized = chart if isinstance(chart, alt.FacetChart) else chart.properties(width="container")
    spec = sized.properties(description=f"{title}. {meaning}").to_dict()
    spec.pop("$schema")  # the page names the grammar itself; an address in it would only look like a download
    spec.pop("config", None)
    if height is not None:
        spec["height"] = height
    return [Figure(title, meaning, spec, wide)]

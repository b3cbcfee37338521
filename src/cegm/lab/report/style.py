"""How charts look: Okabe-Ito colours, a dash pattern and a shape per method (for grey prints), fonts, grids."""

from __future__ import annotations

from typing import Any, TypeAlias

import altair as alt

from cegm.lab.baselines import METHODS, REFERENCE, SUBJECT, Look
from cegm.lab.report.runs import Record

Drawing: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart

INK = "#1b1b1b"
MUTED = "#5f6368"

SPARE_LOOKS = [method.look for name, method in METHODS.items() if name not in (SUBJECT, REFERENCE, "muon")]
"""For names that are no method's."""

WORDS: dict[str, tuple[str, str]] = {
    "better": ("#009E73", "triangle-up"),
    "no evidence": (MUTED, "circle"),
    "worse": ("#D55E00", "triangle-down"),
}
"""Colour and shape of each word of a verdict, as the tables mark them."""

CONFIG: dict[str, Any] = {
    "background": "white",
    "font": "system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "#e6e6e6",
        "domainColor": "#8a8a8a",
        "tickColor": "#8a8a8a",
        "tickCount": 5,
        "labelLimit": 260,
        "labelFlush": True,
    },
    "legend": {
        "orient": "bottom",
        "title": None,
        "labelFontSize": 12,
        "symbolSize": 90,
        "symbolOpacity": 1,
        "symbolStrokeWidth": 0,
        "labelLimit": 320,
        "columns": 3,
        "layout": {"bottom": {"direction": "vertical", "anchor": "start"}},
    },
    "title": {"fontSize": 13, "fontWeight": 600, "anchor": "start", "color": INK},
}


def name(method: str) -> str:
    """The method as people write it."""
    return METHODS[method].title if method in METHODS else method


def looks(methods: list[str]) -> list[Look]:
    """Colour, dash and shape of each method, the same in every chart; names that are no method's share the spare ones in order."""
    spare = iter(SPARE_LOOKS * (1 + len(methods) // len(SPARE_LOOKS)))
    return [METHODS[method].look if method in METHODS else next(spare) for method in methods]


def colour(methods: list[str], legend: bool = True) -> alt.Color:
    """Colour by the field `method`."""
    scale = alt.Scale(domain=[name(m) for m in methods], range=[look.colour for look in looks(methods)])
    return alt.Color("method:N", scale=scale, legend=alt.Legend() if legend else None)


def dash(methods: list[str]) -> alt.StrokeDash:
    """Line pattern by the field `method`."""
    scale = alt.Scale(domain=[name(m) for m in methods], range=[list(look.dash) for look in looks(methods)])
    return alt.StrokeDash("method:N", scale=scale, legend=None)


def shape(methods: list[str], legend: bool = True) -> alt.Shape:
    """Point shape by the field `method`."""
    scale = alt.Scale(domain=[name(m) for m in methods], range=[look.shape for look in looks(methods)])
    return alt.Shape("method:N", scale=scale, legend=alt.Legend() if legend else None)


def data(rows: list[Record]) -> Any:
    """A chart of rows that stand in it, to be given marks."""
    return alt.Chart(alt.InlineData(values=rows))


def lines(
    base: Any, y: Any, methods: list[str], tooltip: list[Any], size: int = 45, marked: str = "", **line: Any
) -> list[Any]:
    """A line per method and the marks on it.

    Args:
        base: The chart, with everything encoded but what the lines differ in.
        y: The vertical axis.
        methods: In the order of the legend.
        tooltip: What a mark tells.
        size: Of a mark.
        marked: Condition for a point to have one; empty for all.
        line: Further looks of the lines.
    """
    base = base.encode(y=y, color=colour(methods))
    marks = base.mark_point(filled=True, size=size, opacity=1).encode(shape=shape(methods), tooltip=tooltip)
    drawn = base.mark_line(**{"strokeWidth": 2, **line}).encode(strokeDash=dash(methods))
    return [drawn, marks.transform_filter(marked) if marked else marks]


def methods_axis(methods: list[str]) -> alt.Y:
    """A row per method."""
    names = [name(method) for method in methods]
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=6, labelFontSize=13)
    return alt.Y("method:N", title=None, sort=names, scale=alt.Scale(domain=names), axis=axis)


def mark_some(points: list[Record], place: int, start: float) -> None:
    """Marks a few points of a line, at other steps for each place, so that lines that coincide can be told apart."""
    for share in (start, start + 0.3, start + 0.6) if points else ():
        points[round((round(share, 2) + 0.08 * place) * (len(points) - 1)) % len(points)]["marked"] = True

"""How charts look: Okabe-Ito colours, a dash pattern and a shape per method (for grey prints), fonts, grids."""

from __future__ import annotations

from typing import Any, TypeAlias

import altair as alt

Drawing: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart

INK = "#1b1b1b"
MUTED = "#5f6368"

NAMES = {
    "cegm": "CEGM",
    "muon": "Muon",
    "adamw": "AdamW",
    "normuon": "NorMuon",
    "newton_muon": "Newton-Muon",
    "soap": "SOAP",
    "shampoo": "Shampoo",
    "mac": "MAC",
    "schedule_free": "Schedule-free",
}

# Okabe-Ito, a brown and a grey; the first three differ in lightness too.
LOOKS: dict[str, tuple[str, list[int], str]] = {
    "cegm": ("#D55E00", [1, 0], "circle"),
    "muon": ("#009E73", [8, 3], "triangle-up"),
    "adamw": ("#0072B2", [2, 2], "square"),
    "normuon": ("#CC79A7", [8, 3, 2, 3], "diamond"),
    "newton_muon": ("#E69F00", [5, 5], "cross"),
    "soap": ("#56B4E9", [1, 3], "triangle-down"),
    "shampoo": ("#000000", [12, 4], "triangle-left"),
    "mac": ("#8C6D46", [4, 2, 1, 2], "triangle-right"),
    "schedule_free": ("#7F7F7F", [10, 2, 2, 2], "wedge"),
}
SPARE_LOOKS = list(LOOKS.values())[3:]

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
    },
    "legend": {
        "orient": "bottom",
        "title": None,
        "labelFontSize": 12,
        "symbolSize": 90,
        "symbolOpacity": 1,
        "symbolStrokeWidth": 0,
        "labelLimit": 320,
    },
    "title": {"fontSize": 13, "fontWeight": 600, "anchor": "start", "color": INK},
}


def name(method: str) -> str:
    """The method as people write it."""
    return NAMES.get(method, method)


def looks(methods: list[str]) -> list[tuple[str, list[int], str]]:
    """Colour, dash and shape of each method, the same in every chart; names that are no method's share the spare ones in order."""
    spare = iter(SPARE_LOOKS * (1 + len(methods) // len(SPARE_LOOKS)))
    return [LOOKS[method] if method in LOOKS else next(spare) for method in methods]


def colour(methods: list[str], legend: bool = True) -> alt.Color:
    """Colour by the field `method`."""
    scale = alt.Scale(domain=[name(m) for m in methods], range=[look[0] for look in looks(methods)])
    return alt.Color("method:N", scale=scale, legend=alt.Legend() if legend else None)


def dash(methods: list[str]) -> alt.StrokeDash:
    """Line pattern by the field `method`."""
    scale = alt.Scale(domain=[name(m) for m in methods], range=[look[1] for look in looks(methods)])
    return alt.StrokeDash("method:N", scale=scale, legend=None)


def shape(methods: list[str], legend: bool = True) -> alt.Shape:
    """Point shape by the field `method`."""
    scale = alt.Scale(domain=[name(m) for m in methods], range=[look[2] for look in looks(methods)])
    return alt.Shape("method:N", scale=scale, legend=alt.Legend() if legend else None)

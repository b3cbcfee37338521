"""What a step costs beside the reference's as width, batch and length vary: charts and the rows of the table."""

from __future__ import annotations

from typing import Any

import altair as alt

from cegm.lab.baselines import BASE, ordered
from cegm.lab.report import style, words
from cegm.lab.report.forest import pairs
from cegm.lab.report.runs import Record

AXES = {"width": "width of the model", "batch": "rows of a batch", "length": "tokens of a row"}


def measured(overhead: Record) -> list[Record]:
    """Points that were measured; the first is the comparison's own shape."""
    return [point for point in overhead["points"] if "methods" in point]


def own_shape(overhead: Record | None) -> Record | None:
    """The point at the comparison's own shape, if it was measured."""
    first = overhead["points"][0] if overhead and overhead["points"] else {}
    return first if "methods" in first else None


def along(overhead: Record, axis: str) -> list[Record]:
    """Points that differ from the first in nothing but `axis`, in its order."""
    own = overhead["points"][0] if overhead["points"] else {}
    others = [name for name in AXES if name != axis]
    found = [point for point in measured(overhead) if all(point[name] == own[name] for name in others)]
    return sorted(found, key=lambda point: int(point[axis]))


def compared(overhead: Record) -> list[str]:
    """Methods beside the reference."""
    return [method for method in ordered(overhead["methods"]) if method != overhead["reference"]]


def ratios(overhead: Record, axis: str) -> style.Drawing | None:
    """Time of a step over the reference's along one axis, with its interval or its blocks; None where no two points make a line."""
    points = along(overhead, axis)
    methods = compared(overhead)
    if len({point[axis] for point in points}) < 2 or not methods:
        return None
    names = ("estimate", "low", "high")
    measured_at = [(method, point[axis], point["methods"][method]["ratio"]) for method in methods for point in points]
    data = [
        {"method": style.name(method), "at": at, **{name: ratio[name] for name in names}}
        for method, at, ratio in measured_at
    ]
    blocks = [
        {"method": style.name(method), "at": at, "block": block}
        for method, at, ratio in measured_at
        if ratio["low"] is None
        for block in ratio["points"]
    ]
    x = alt.X(
        "at:Q",
        title=AXES[axis],
        scale=alt.Scale(type="log", base=2, nice=False, padding=14),
        axis=alt.Axis(values=[point[axis] for point in points], format="d", grid=False),
    )
    title = f"time of a step over {style.name(overhead['reference'])}'s"
    base, colour = style.data(data).encode(x=x), style.colour(methods)
    y = alt.Y("estimate:Q", title=title, scale=alt.Scale(zero=False, padding=8))
    bars = base.transform_filter("datum.low !== null").mark_rule(strokeWidth=2)
    bars = bars.encode(y=alt.Y("low:Q", title=title), y2="high:Q", color=colour)
    rings = style.data(blocks).mark_point(size=40, opacity=0.8)
    rings = rings.encode(x=x, y=alt.Y("block:Q", title=title), color=colour)
    numbers = [alt.Tooltip(f"{name}:Q", format=".3f") for name in names]
    tooltip = ["method:N", alt.Tooltip("at:Q", title=AXES[axis]), *numbers]
    return alt.layer(_reference(overhead), bars, rings, *style.lines(base, y, methods, tooltip, 60))


def changes(overhead: Record, order: list[str]) -> style.Drawing | None:
    """Time of a step of every change, in this order, over that of their base, with its interval or its blocks."""
    timed = {method: point["methods"][method] for point in measured(overhead) for method in point["methods"]}
    rows = [
        {
            **{"pair": change, "effect": own["ratio"]["estimate"], "word": "no evidence"},
            **{end: own["ratio"][end] for end in ("low", "high")},
            "seeds": {} if own["ratio"]["low"] is not None else dict(enumerate(own["ratio"]["points"])),
        }
        for change in order
        if (own := timed.get(change)) is not None
    ]
    return pairs(rows, "time of a step, base = 1", 1.0)


def _reference(overhead: Record) -> Any:
    """The reference itself: a dashed line at one."""
    base = style.data([{"estimate": 1.0, "label": style.name(overhead["reference"])}])
    line = base.mark_rule(color=style.MUTED, strokeDash=[4, 4]).encode(y="estimate:Q")
    label = base.mark_text(align="right", baseline="top", dy=3, color=style.MUTED, fontSize=11)
    return line + label.encode(y="estimate:Q", x=alt.value("width"), text="label:N")


def rows(overhead: Record) -> list[list[str]]:
    """A row per shape and method."""
    return [
        _row(method, point, point["methods"][method])
        for point in measured(overhead)
        for method in reversed(ordered(overhead["methods"]))
        if method in point["methods"] and method != BASE
    ]


def _row(method: str, point: Record, own: Record) -> list[str]:
    ratio = own["ratio"]
    return [
        style.name(method),
        str(point["width"]),
        f"{point['batch']} x {point['length']}",
        f"{1000 * own['seconds_per_step']:,.1f}",
        f"{own['tokens_per_second']:,.0f}",
        f"{ratio['estimate']:.3f}",
        _spread(ratio),
        f"{own['peak_bytes'] / words.MEBIBYTE:,.1f}",
        f"{own['peak_ratio']:.3f}",
        f"{own['state_bytes_per_matrix_weight']:.2f}",
    ]


def _spread(ratio: Record) -> str:
    """The ends of the interval, or every block where they are too few for one; a dash for the reference beside itself."""
    ends = [ratio["low"], ratio["high"]] if ratio["low"] is not None else ratio["points"]
    if len(set(ends)) == 1:
        return words.NONE
    return (", " if ratio["low"] is None else " to ").join(f"{end:.3f}" for end in ends)

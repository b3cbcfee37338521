"""How each method recovers from one bad step: the chart and the rows of the table."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import median
from typing import Any

import altair as alt

from cegm.lab.baselines import ordered
from cegm.lab.report import style, words
from cegm.lab.report.curves import MOST_POINTS, thinned
from cegm.lab.report.folder import Record

COLUMNS = (
    ("Bad step", ""),
    ("Clipping", ""),
    ("Method", ""),
    ("Highest excess", "nats per token"),
    ("Steps to recover", "median"),
    ("Fewest to most", "over seeds"),
    ("Left at the end", "nats per token"),
    ("Seeds", ""),
)
NAMES = 3
"""Columns that hold words, not numbers."""

PANEL = (480, 190)
"""Width and height of one of the charts side by side, in pixels."""

TICKS = (-1, -0.1, -0.02, 0, 0.02, 0.1, 0.5, 2, 10, 50)
CLIPPINGS = ("without clipping", "with clipping")

Key = tuple[str, str, str]
"""Spike, clipping, method."""


def rows(drill: Record) -> list[list[str]]:
    """A row per spike, clipping and method, in the order of `COLUMNS`: medians over seeds."""
    return [_row(drill, key, curves) for key, curves in _grouped(drill).items()]


def seeds(drill: Record) -> int:
    """How many seeds were drilled."""
    return len({point["seed"] for point in drill["points"] if "curves" in point})


def chart(drill: Record) -> style.Drawing | None:
    """Excess over the steps after the bad one, a panel per spike and clipping; None without a measurement."""
    points = curve_points(drill)
    if not points:
        return None
    methods = [method for method in ordered(drill["methods"]) if any(p["method"] == style.name(method) for p in points)]
    most, least = max(p["high"] for p in points), min(p["low"] for p in points)
    ticks = [tick for tick in TICKS if 2 * least <= tick <= 2 * most or abs(tick) <= drill["healed"]]
    scale = alt.Scale(type="symlog", constant=drill["healed"], nice=False)
    title = "excess (nats per token)"
    axis = alt.Axis(values=ticks, format="~g", tickCount=len(ticks))
    base: Any = alt.Chart().encode(x=alt.X("step:Q", title="steps after the bad one"), color=style.colour(methods))
    y = alt.Y("middle:Q", title=title, scale=scale, axis=axis)
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=title, scale=scale, axis=axis), y2="high:Q")
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=style.dash(methods))
    marks = base.mark_point(filled=True, size=55, opacity=1).encode(y=y, shape=style.shape(methods), tooltip=_tooltip())
    layers = alt.layer(_levels(drill), band, line, marks.transform_filter("datum.marked"))
    header = alt.Header(labelFontSize=12, labelFontWeight=600, labelColor=style.INK)
    spikes = [drill["spikes"][spike] for spike in dict.fromkeys(key[0] for key in _grouped(drill))]
    found: alt.FacetChart = (
        layers.properties(width=PANEL[0], height=PANEL[1])
        .facet(
            data=alt.InlineData(values=points),
            column=alt.Column("spike:N", title=None, sort=spikes, header=header),
            row=alt.Row("clipping:N", title=None, sort=list(CLIPPINGS), header=header),
            spacing=18,
        )
    )  # fmt: skip
    return found


def curve_points(drill: Record) -> list[Record]:
    """Median, lowest and highest excess over seeds by spike, clipping, method and step, as far as all are finite."""
    points = []
    for place, ((spike, clipping, method), curves) in enumerate(_grouped(drill).items()):
        own = []
        for step, values in enumerate(zip(*(curve["excess"] for curve in curves), strict=True), start=1):
            if None in values:
                break
            names = {"spike": drill["spikes"][spike], "clipping": clipping, "method": style.name(method)}
            numbers = {"middle": median(values), "low": min(values), "high": max(values)}
            own.append({**names, "step": step, **numbers, "marked": False})
        own = thinned(own, MOST_POINTS)
        # A few shapes on each line, at other steps for each method, so that lines that coincide can be told apart.
        for share in (0.12, 0.42, 0.72) if own else ():
            own[round((share + 0.08 * (place % 3)) * (len(own) - 1))]["marked"] = True
        points += own
    return points


def _grouped(drill: Record) -> dict[Key, list[Record]]:
    """Curves of all seeds; spikes first, then without and with clipping, then methods, the subject last as in all such tables."""
    groups: dict[Key, list[Record]] = defaultdict(list)
    for point in drill["points"]:
        for curve in point.get("curves", ()):
            groups[curve["spike"], CLIPPINGS[curve["clip"] > 0], point["method"]].append(curve)
    order = [list(drill["spikes"]), list(CLIPPINGS), [*reversed(ordered(drill["methods"]))]]
    return dict(
        sorted(groups.items(), key=lambda item: [one.index(part) for one, part in zip(order, item[0], strict=True)])
    )


def _row(drill: Record, key: Key, curves: list[Record]) -> list[str]:
    spike, _, method = key
    limit = curves[0]["clip"]
    needed = sorted(math.inf if curve["recovered_after"] is None else curve["recovered_after"] for curve in curves)
    fewest, most = (_steps(drill, number) for number in (needed[0], needed[-1]))
    return [
        drill["spikes"][spike],
        f"norm {limit:g}" if limit else "none",
        style.name(method),
        _excess([curve["highest"] for curve in curves]),
        _steps(drill, median(needed)),
        fewest if fewest == most else f"{fewest} to {most}",
        _excess([curve["left"] for curve in curves]),
        str(len(curves)),
    ]


def _steps(drill: Record, number: float) -> str:
    return f"{number:g}" if math.isfinite(number) else f"> {drill['after']}"


def _excess(values: list[float | None]) -> str:
    middle = median(math.inf if value is None else value for value in values)
    return words.signed(middle, 3) if math.isfinite(middle) else "not finite"


def _levels(drill: Record) -> alt.LayerChart:
    """The undisturbed copy, and dashed the excess below which a method has recovered."""
    base = alt.Chart(alt.InlineData(values=[{"middle": 0.0}])).mark_rule(color=style.MUTED)
    healed = alt.Chart(alt.InlineData(values=[{"middle": drill["healed"]}]))
    dashed = healed.mark_rule(color=style.MUTED, strokeDash=[4, 4])
    return base.encode(y="middle:Q") + dashed.encode(y="middle:Q")


def _tooltip() -> list[Any]:
    titles = {"middle": "median", "low": "lowest seed", "high": "highest seed"}
    numbers = [alt.Tooltip(f"{name}:Q", title=title, format=".4f") for name, title in titles.items()]
    return ["method:N", "step:Q", *numbers]

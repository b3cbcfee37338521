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
from cegm.lab.report.runs import Record

PANEL = (480, 190)
"""Width and height of one of the charts side by side, in pixels."""

TICKS = (-1, -0.1, -0.02, 0, 0.02, 0.1, 0.5, 2, 10, 50)
CLIPPINGS = ("without clipping", "with clipping")

Key = tuple[str, str, str]
"""Spike, clipping, method."""


def rows(drill: Record) -> list[list[str]]:
    """A row per spike, clipping and method: medians over seeds."""
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
    base: Any = alt.Chart().encode(x=alt.X("step:Q", title="steps after the bad one"))
    y, low = (alt.Y(f"{field}:Q", title=title, scale=scale, axis=axis) for field in ("middle", "low"))
    band = base.mark_area(opacity=0.18).encode(y=low, y2="high:Q", color=style.colour(methods))
    titles = {"middle": "median", "low": "lowest seed", "high": "highest seed"}
    numbers = [alt.Tooltip(f"{name}:Q", title=told, format=".4f") for name, told in titles.items()]
    lines = style.lines(base, y, methods, ["method:N", "step:Q", *numbers], 55, "datum.marked")
    layers = alt.layer(_levels(drill), band, *lines)
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
        style.mark_some(own, place % 3, 0.12)
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


def _levels(drill: Record) -> Any:
    """The undisturbed copy, and dashed the excess below which a method has recovered."""
    base, healed = style.data([{"middle": 0.0}]), style.data([{"middle": drill["healed"]}])
    dashed = healed.mark_rule(color=style.MUTED, strokeDash=[4, 4])
    return base.mark_rule(color=style.MUTED).encode(y="middle:Q") + dashed.encode(y="middle:Q")

"""Charts that set methods side by side: every seed as a dot, paired differences, costs as bars."""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

import altair as alt

from cegm.report import style
from cegm.report.folder import Folder, Record, finite
from cegm.report.judged import judged

MEBIBYTE = 2**20


def seed_points(folder: Folder, measure: str) -> list[Record]:
    """Value of every run by method and seed, from the verdict's measure; a missed target has value None."""
    found = judged(folder)
    return [
        {"method": style.name(method), "rank": rank, "seed": int(seed), "value": value}
        for rank, method in enumerate(folder.methods)
        for seed, value in (found.measure(measure) if found else {})
        .get("methods", {})
        .get(method, {})
        .get("values", {})
        .items()
    ]


def every_seed(folder: Folder, measure: str, title: str) -> style.Drawing | None:
    """One dot per seed and a bar at the mean; thin lines join runs of the same seed."""
    points = [point for point in seed_points(folder, measure) if point["value"] is not None]
    if not points:
        return None
    y = _methods_axis(folder)
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, padding=12))
    base: Any = alt.Chart(alt.InlineData(values=points)).encode(x=x, y=y)
    join = base.mark_line(color="#bdbdbd", strokeWidth=1).encode(detail="seed:N", order="rank:Q")
    tooltip = [alt.Tooltip("method:N"), alt.Tooltip("seed:N"), alt.Tooltip("value:Q", format=".5~g")]
    dots = base.mark_point(filled=True, size=80, opacity=0.85).encode(
        color=style.colour(folder.methods, legend=False),
        shape=style.shape(folder.methods, legend=False),
        tooltip=tooltip,
    )
    means = [
        {"method": name, "value": fmean(p["value"] for p in points if p["method"] == name)}
        for name in dict.fromkeys(point["method"] for point in points)
    ]
    bars = alt.Chart(alt.InlineData(values=means)).mark_tick(thickness=2.5, size=34, color=style.INK).encode(x=x, y=y)
    return alt.layer(join, bars, dots)


def difference_points(folder: Folder, measure: str) -> list[Record]:
    """Effect of every pair with its interval or, in its place, its points, as the verdict states them."""
    found = judged(folder)
    return [
        {
            "pair": f"{style.name(entry['pair'][0])} against {style.name(entry['pair'][1])}",
            "effect": entry["effect"],
            "low": (entry["interval"] or [None, None])[0],
            "high": (entry["interval"] or [None, None])[1],
            "seeds": {} if entry["interval"] else dict(zip(entry["seeds"], entry.get("points", ()), strict=False)),
        }
        for entry in (found.measure(measure) if found else {}).get("pairs", [])
        if entry["effect"] is not None
    ]


def differences(folder: Folder, measure: str, title: str) -> style.Drawing | None:
    """Paired differences with their 95 % intervals, or a dot per seed where there is none, and a line at "no difference".

    Args:
        folder: What to draw.
        measure: Name of a measure in the verdict whose effect is a difference.
        title: Axis title.
    """
    pairs = difference_points(folder, measure)
    if not pairs:
        return None
    points = [{name: value for name, value in pair.items() if name != "seeds"} for pair in pairs]
    seeds = [
        {"pair": pair["pair"], "seed": seed, "difference": value}
        for pair in pairs
        for seed, value in pair["seeds"].items()
    ]
    y = alt.Y("pair:N", title=None, sort=None, axis=alt.Axis(grid=False, ticks=False, domain=False, labelPadding=6))
    x = alt.X("effect:Q", title=title, scale=alt.Scale(padding=10))
    base: Any = alt.Chart(alt.InlineData(values=points)).encode(y=y)
    zero = (
        alt.Chart(alt.InlineData(values=[{"effect": 0}]))
        .mark_rule(color=style.INK, strokeDash=[4, 3])
        .encode(x="effect:Q")
    )
    numbers = [alt.Tooltip(f"{field}:Q", format=".4~g") for field in ("effect", "low", "high")]
    bars = base.transform_filter("datum.low !== null").mark_rule(strokeWidth=3, color=style.MUTED)
    means = base.mark_point(filled=True, size=110, color=style.INK, opacity=1)
    rings: Any = alt.Chart(alt.InlineData(values=seeds)).mark_point(size=40, color=style.INK, opacity=0.7, yOffset=9)
    tooltip = ["pair:N", "seed:N", alt.Tooltip("difference:Q", format=".4~g")]
    return alt.layer(
        zero,
        bars.encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        means.encode(x=x, tooltip=["pair:N", *numbers]),
        rings.encode(y=y, x=alt.X("difference:Q", title=title), tooltip=tooltip),
    )


def steps_to_target(folder: Folder) -> style.Drawing | None:
    """Steps each seed needed; a miss stands as a cross at the end of its run."""
    last = max((int(run.result.get("steps") or 0) for run in folder.finished()), default=0)
    points = [
        {
            **point,
            "value": last if point["value"] is None else point["value"],
            "outcome": "missed" if point["value"] is None else "reached",
        }
        for point in seed_points(folder, "steps_to_target")
    ]
    if not points:
        return None
    outcome = alt.Scale(domain=["reached", "missed"], range=["circle", "cross"])
    x = alt.X("value:Q", title="steps", scale=alt.Scale(zero=False, padding=14))
    base: Any = alt.Chart(alt.InlineData(values=points)).encode(x=x, y=_methods_axis(folder), yOffset="seed:N")
    dots = base.mark_point(filled=True, size=100, opacity=0.9).encode(
        color=style.colour(folder.methods, legend=False),
        shape=alt.Shape("outcome:N", scale=outcome, legend=alt.Legend()),
        tooltip=["method:N", "seed:N", "value:Q", "outcome:N"],
    )
    labels = base.mark_text(align="right", dx=-10, fontSize=11, color=style.INK).encode(text=alt.value("missed"))
    return alt.layer(dots, labels.transform_filter("datum.outcome === 'missed'"))


def step_time_points(folder: Folder) -> list[Record]:
    """Milliseconds per step by method and part: medians over the logged lines of all seeds but the first."""
    points = []
    for method in folder.methods:
        lines = [line for run in folder.finished() if run.method == method for line in run.train[1:]]
        for key, part in (
            ("forward_backward_seconds", "forward and backward"),
            ("optimizer_seconds", "optimizer"),
        ):
            seconds = [value for line in lines if (value := finite(line.get(key))) is not None]
            if seconds:
                points.append({"method": style.name(method), "part": part, "value": 1000 * median(seconds)})
    return points


def step_time(folder: Folder) -> style.Drawing | None:
    """Time of one step, split into the model and the optimizer."""
    points = step_time_points(folder)
    if not points:
        return None
    parts = alt.Scale(domain=["forward and backward", "optimizer"], range=["#b8b8b8", "#4a4a4a"])
    tooltip = ["method:N", "part:N", alt.Tooltip("value:Q", format=".1f", title="ms")]
    base: Any = alt.Chart(alt.InlineData(values=points)).encode(y=_methods_axis(folder))
    bars = base.mark_bar(size=22).encode(
        x=alt.X("value:Q", title="milliseconds per step", stack="zero"),
        color=alt.Color("part:N", scale=parts, legend=alt.Legend()),
        order=alt.Order("part:N"),
        tooltip=tooltip,
    )
    totals = base.mark_text(align="left", dx=5, fontSize=12, color=style.INK)
    return alt.layer(bars, totals.encode(x=alt.X("sum(value):Q"), text=alt.Text("sum(value):Q", format=",.0f")))


def cost_points(folder: Folder, key: str) -> list[Record]:
    """`memory` in MiB, or `state` in bytes of optimizer state per parameter: the median over seeds, by method."""
    points = []
    for method in folder.methods:
        values = [
            value for run in folder.finished() if run.method == method and (value := _cost(run.result, key)) is not None
        ]
        if values:
            points.append({"method": style.name(method), "value": median(values)})
    return points


def _cost(result: Record, key: str) -> float | None:
    if key == "memory":
        used = finite(result.get("memory_bytes"))
        return None if used is None else used / MEBIBYTE
    state, parameters = finite(result.get("optimizer_state_bytes")), finite(result.get("parameters"))
    return None if state is None or not parameters else state / parameters


def cost(folder: Folder, key: str, title: str, number: str) -> style.Drawing | None:
    """One bar per method with its value written on it."""
    points = cost_points(folder, key)
    if not points:
        return None
    base: Any = alt.Chart(alt.InlineData(values=points)).encode(
        x=alt.X("value:Q", title=title),
        y=_methods_axis(folder),
        tooltip=["method:N", alt.Tooltip("value:Q", format=number)],
    )
    bars = base.mark_bar(size=22).encode(color=style.colour(folder.methods, legend=False))
    labels = base.mark_text(align="right", dx=-6, color="white", fontSize=12, fontWeight="bold")
    return alt.layer(bars, labels.encode(text=alt.Text("value:Q", format=number)))


def _methods_axis(folder: Folder) -> alt.Y:
    names = [style.name(method) for method in folder.methods]
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=6, labelFontSize=13)
    return alt.Y("method:N", title=None, sort=names, scale=alt.Scale(domain=names), axis=axis)

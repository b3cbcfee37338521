"""Charts that set methods side by side: every seed as a dot, steps to a target, costs as bars."""

from __future__ import annotations

from statistics import fmean, median

import altair as alt

from cegm.lab.report import style
from cegm.lab.report.judged import judged
from cegm.lab.report.runs import Folder, Record, finite
from cegm.lab.report.words import MEBIBYTE


def seed_points(folder: Folder, measure: str) -> list[Record]:
    """Value of every run by method and seed, from the verdict's measure; a missed target has value None."""
    found = judged(folder)
    methods = (found.measure(measure) if found else {}).get("methods", {})
    return [
        {"method": style.name(method), "rank": rank, "seed": int(seed), "value": value}
        for rank, method in enumerate(folder.methods)
        for seed, value in methods.get(method, {}).get("values", {}).items()
    ]


def every_seed(folder: Folder, measure: str, title: str) -> style.Drawing | None:
    """One dot per seed and a bar at the mean; thin lines join runs of the same seed."""
    points = [point for point in seed_points(folder, measure) if point["value"] is not None]
    if not points:
        return None
    y = style.methods_axis(folder.methods)
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, padding=12))
    base = style.data(points).encode(x=x, y=y)
    join = base.mark_line(color="#bdbdbd", strokeWidth=1).encode(detail="seed:N", order="rank:Q")
    dots = base.mark_point(filled=True, size=80, opacity=0.85).encode(
        color=style.colour(folder.methods, legend=False),
        shape=style.shape(folder.methods, legend=False),
        tooltip=["method:N", "seed:N", alt.Tooltip("value:Q", format=".5~g")],
    )
    means = [
        {"method": name, "value": fmean(p["value"] for p in points if p["method"] == name)}
        for name in dict.fromkeys(point["method"] for point in points)
    ]
    bars = style.data(means).mark_tick(thickness=2.5, size=34, color=style.INK).encode(x=x, y=y)
    return alt.layer(join, bars, dots)


def steps_to_target(folder: Folder) -> style.Drawing | None:
    """Steps each seed needed; a miss stands as a cross at the end of its run."""
    last = max((int(run.result.get("steps") or 0) for run in folder.finished()), default=0)
    points = [
        {**point, "value": last, "outcome": "missed"} if point["value"] is None else {**point, "outcome": "reached"}
        for point in seed_points(folder, "steps_to_target")
    ]
    if not points:
        return None
    outcome = alt.Scale(domain=["reached", "missed"], range=["circle", "cross"])
    x = alt.X("value:Q", title="steps", scale=alt.Scale(zero=False, padding=14))
    base = style.data(points).encode(x=x, y=style.methods_axis(folder.methods), yOffset="seed:N")
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
        for part in ("forward and backward", "optimizer"):
            key = f"{part.replace(' and ', '_')}_seconds"
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
    base = style.data(points).encode(y=style.methods_axis(folder.methods))
    bars = base.mark_bar(size=22).encode(
        x=alt.X("value:Q", title="milliseconds per step", stack="zero"),
        color=alt.Color("part:N", scale=parts, legend=alt.Legend()),
        order=alt.Order("part:N"),
        tooltip=["method:N", "part:N", alt.Tooltip("value:Q", format=".1f", title="ms")],
    )
    totals = base.mark_text(align="left", dx=5, fontSize=12, color=style.INK)
    return alt.layer(bars, totals.encode(x=alt.X("sum(value):Q"), text=alt.Text("sum(value):Q", format=",.0f")))


def cost(folder: Folder, key: str, title: str, number: str) -> style.Drawing | None:
    """One bar per method with its value written on it: the median over seeds.

    Args:
        folder: What to draw.
        key: `memory` in MiB, or `state` in bytes of optimizer state per parameter.
        title: Axis title.
        number: Format of the values.
    """
    points = []
    for method in folder.methods:
        costs = [_cost(run.result, key) for run in folder.finished() if run.method == method]
        known = [value for value in costs if value is not None]
        if known:
            points.append({"method": style.name(method), "value": median(known)})
    if not points:
        return None
    base = style.data(points).encode(
        x=alt.X("value:Q", title=title),
        y=style.methods_axis(folder.methods),
        tooltip=["method:N", alt.Tooltip("value:Q", format=number)],
    )
    bars = base.mark_bar(size=22).encode(color=style.colour(folder.methods, legend=False))
    labels = base.mark_text(align="right", dx=-6, color="white", fontSize=12, fontWeight="bold")
    return alt.layer(bars, labels.encode(text=alt.Text("value:Q", format=number)))


def _cost(result: Record, key: str) -> float | None:
    if key == "memory":
        size, parts = finite(result.get("memory_bytes")), float(MEBIBYTE)
    else:
        size, parts = finite(result.get("optimizer_state_bytes")), finite(result.get("parameters")) or 0.0
    return None if size is None or not parts else size / parts

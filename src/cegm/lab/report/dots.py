"""Charts that set methods side by side: every seed as a dot, paired differences, costs as bars."""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

import altair as alt

from cegm.lab.report import style
from cegm.lab.report.folder import Folder, Record, finite
from cegm.lab.report.judged import judged

MEBIBYTE = 2**20

ROW = 22
"""Pixels of a row of a forest."""

FAR = 3.0
"""Effects this many times the median size are cut at the edge of a forest."""


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
    """Effect of every pair with its interval or, in its place, its points, as the verdict states them; of an ablation, lowest first."""
    found = judged(folder)
    rows = [
        {
            "pair": " against ".join(map(style.name, entry["pair"][: 1 if folder.is_ablation else 2])),
            "effect": entry["effect"],
            "low": (entry["interval"] or [None, None])[0],
            "high": (entry["interval"] or [None, None])[1],
            "word": entry["word"],
            "seeds": {}
            if entry["interval"] and not folder.is_ablation
            else dict(zip(entry["seeds"], entry.get("points", ()), strict=False)),
        }
        for entry in (found.measure(measure) if found else {}).get("pairs", [])
        if entry["effect"] is not None
    ]
    return sorted(rows, key=lambda row: float(row["effect"])) if folder.is_ablation else rows


def domain(rows: list[Record], neutral: float) -> tuple[float, float]:
    """Ends of an axis of effects: all marks and "no difference", but no further from it than `FAR` times the median row reaches."""
    marks = [
        [
            value - neutral
            for value in (row["effect"], row["low"], row["high"], *row["seeds"].values())
            if value is not None
        ]
        for row in rows
    ]
    most = FAR * median(max(map(abs, own)) for own in marks)
    low, high = (end((0.0, *(mark for own in marks for mark in own))) for end in (min, max))
    low, high = max(low, -most), min(high, most)
    margin = 0.04 * (high - low) or 1e-3
    return neutral + low - margin, neutral + high + margin


def forest(rows: list[Record], title: str, neutral: float = 0.0) -> style.Drawing | None:
    """A row per pair: its effect, 95 % interval, the dot of each seed, and a dashed line at "no difference".

    Args:
        rows: `pair`, `effect`, `low` and `high` (None for no interval), `word`, and `seeds` with the effect on each. What lies
            far outside all others stands at the edge with its number, so that one disaster does not flatten the rest.
        title: Axis title.
        neutral: Effect of "no difference".
    """
    if not rows:
        return None
    low, high = domain(rows, neutral)
    x, y = (
        alt.X("effect:Q", title=title, scale=alt.Scale(domain=[low, high], nice=False)),
        alt.Y(
            "pair:N",
            title=None,
            sort=None,
            scale=alt.Scale(domain=[row["pair"] for row in rows]),
            axis=alt.Axis(grid=False, ticks=False, domain=False, labelPadding=6),
        ),
    )
    near = [
        {name: value for name, value in row.items() if name != "seeds"} for row in rows if low <= row["effect"] <= high
    ]
    seeds = [
        {"pair": row["pair"], "seed": seed, "difference": value}
        for row in rows
        for seed, value in row["seeds"].items()
        if low <= value <= high
    ]
    colours, shapes = (
        alt.Scale(domain=list(style.WORDS), range=list(looks)) for looks in zip(*style.WORDS.values(), strict=True)
    )
    zero = alt.Chart(alt.InlineData(values=[{"effect": neutral}])).mark_rule(color=style.INK, strokeDash=[4, 3])
    base: Any = alt.Chart(alt.InlineData(values=near)).encode(y=y, color=alt.Color("word:N", scale=colours))
    numbers = [alt.Tooltip(f"{field}:Q", format=".4~g") for field in ("effect", "low", "high")]
    bars = base.transform_filter("datum.low !== null").mark_rule(strokeWidth=3, clip=True)
    means = base.mark_point(filled=True, size=90, opacity=1)
    dots: Any = alt.Chart(alt.InlineData(values=seeds)).mark_point(size=22, color=style.INK, opacity=0.7, yOffset=7)
    tooltip = ["pair:N", "seed:N", alt.Tooltip("difference:Q", format=".4~g")]
    return alt.layer(
        zero.encode(x=x),
        bars.encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        means.encode(x=x, shape=alt.Shape("word:N", scale=shapes), tooltip=["pair:N", "word:N", *numbers]),
        dots.encode(y=y, x=alt.X("difference:Q", title=title), tooltip=tooltip),
        *(
            _beyond(row, y, row["effect"] < low, f"{row['effect']:{'.3f' if neutral else '+.4f'}}")
            for row in rows
            if not low <= row["effect"] <= high
        ),
    )


def _beyond(row: Record, y: alt.Y, left: bool, number: str) -> Any:
    """The number of an effect beyond the edge, with where it is."""
    told = f"\N{LEFTWARDS ARROW} {number}" if left else f"{number} \N{RIGHTWARDS ARROW}"
    mark: Any = alt.Chart(alt.InlineData(values=[{"pair": row["pair"], "told": told}]))
    colour, _ = style.WORDS[row["word"]]
    mark = mark.mark_text(align="left" if left else "right", dx=4 if left else -4, fontWeight=600, color=colour)
    return mark.encode(y=y, x=alt.value(0 if left else "width"), text="told:N")


def rows_height(rows: list[Record]) -> int:
    """Pixels that a forest of these rows takes."""
    return max(200, 60 + ROW * len(rows))


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

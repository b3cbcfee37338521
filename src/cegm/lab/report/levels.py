"""Charts of the axes: a score by level, the share of runs that reached a target by step, and errors that add up."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import altair as alt

from cegm.lab.report import style
from cegm.lab.report.curves import band_chart
from cegm.lab.report.runs import Record
from cegm.lab.tasks.steps import implied_wrong_steps

BESIDE: dict[str, Any] = {"align": "left", "baseline": "middle", "dx": 6, "color": style.MUTED, "fontSize": 11}
"""How the name of a dashed line stands at its end."""


def level_points(entries: list[Record], methods: list[str]) -> list[Record]:
    """Mean, lowest and highest seed of each method at each level."""
    return [
        {"method": style.name(method), "level": entry["level"], **entry["methods"][method]}
        for method in methods
        for entry in sorted(entries, key=lambda each: float(each["level"]))
        if method in entry["methods"]
    ]


def by_level(
    entries: list[Record], controls: list[Record], methods: list[str], x_title: str, y_title: str, unit: str
) -> style.Drawing | None:
    """Score over levels, with chance and the controls as dashed lines; None where no two points make a line.

    Args:
        entries: Levels of one subset, as `axes` of a verdict has them.
        controls: The same of the answerers that are no models, `subset` being their name.
        methods: In the order of the legend.
        x_title: What a level is.
        y_title: What the score is.
        unit: Unit of the measure; `accuracy` is drawn in percent.
    """
    points = level_points(entries, methods)
    levels = sorted({point["level"] for point in points})
    if len(levels) < 2:
        return None
    shares = max(levels) < 1
    axis = alt.Axis(values=levels, format=".0%" if shares else "d", grid=False, tickCount=len(levels))
    x = alt.X("level:Q", title=x_title, scale=alt.Scale(nice=False, padding=12), axis=axis)
    chart = band_chart(points, methods, x, y_title, ".0%" if unit == "accuracy" else ".2f", zero=True)
    guesses = [(entry, "chance", entry["chance"]) for entry in entries if entry["chance"] is not None]
    # A control answers alike beside every model.
    guesses += [(entry, entry["subset"], next(iter(entry["methods"].values()))["mean"]) for entry in controls]
    marks = [{"label": label, "level": entry["level"], "mean": mean} for entry, label, mean in guesses]
    return alt.layer(*_dashed(marks, x), chart)


def _dashed(points: list[Record], x: alt.X) -> list[alt.Chart]:
    """A grey dashed line per label, which stands at its last point."""
    if not points:
        return []
    last = {point["label"]: point for point in sorted(points, key=lambda point: float(point["level"]))}
    base = style.data(points).encode(x=x, y="mean:Q", detail="label:N")
    words = style.data(list(last.values())).mark_text(**BESIDE)
    return [
        base.mark_line(color=style.MUTED, strokeDash=[4, 4], strokeWidth=1.5),
        words.encode(x=x, y="mean:Q", text="label:N"),
    ]


def convergence(survival: Record, methods: list[str]) -> style.Drawing | None:
    """Share of the runs that reached the target by each step (Kaplan-Meier).

    Args:
        survival: `horizon`, and by method `curve` of (step, share reached).
        methods: In the order of the legend.
    """
    points = [
        {"method": style.name(method), "step": step, "share": share}
        for method in methods
        for step, share in _steps(survival["methods"].get(method), survival["horizon"])
    ]
    if not points:
        return None
    base = style.data(points).encode(x=alt.X("step:Q", title="steps", scale=alt.Scale(nice=False, padding=8)))
    scale, axis = alt.Scale(domain=[0, 1]), alt.Axis(format=".0%")
    y = alt.Y("share:Q", title="runs that reached the target", scale=scale, axis=axis)
    tooltip = ["method:N", "step:Q", alt.Tooltip("share:Q", format=".0%")]
    return alt.layer(*style.lines(base, y, methods, tooltip, 60, interpolate="step-after", strokeWidth=2.5))


def _steps(own: Record | None, horizon: float) -> list[tuple[float, float]]:
    """The curve from step 0 to the horizon; none for a method without runs."""
    if own is None or not own["runs"]:
        return []
    curve = [(0.0, 0.0), *((float(step), float(share)) for step, share in own["curve"])]
    return [*curve, (float(horizon), curve[-1][1])]


def wrong_steps(entries: list[Record], method: str) -> list[float]:
    """Mean number of wrong steps up to each step, from the levels of one mode."""
    ordered = sorted(entries, key=lambda entry: float(entry["level"]))
    return list(accumulate(1 - entry["methods"][method]["mean"] for entry in ordered if method in entry["methods"]))


def errors(entries: list[Record], methods: list[str], carried: bool) -> style.Drawing | None:
    """Wrong steps up to each step, beside what accuracy at the first step implies and what guessing gets.

    Args:
        entries: Levels of one mode.
        methods: In the order of the legend.
        carried: Whether an error is carried on (the model goes on from its own answers), which decides the implied curve.
    """
    points, implied = [], []
    for method in methods:
        own = wrong_steps(entries, method)
        if len(own) < 2:
            continue
        curves = implied_wrong_steps(1 - own[0], len(own))
        points += _counted(method, own)
        implied += _counted(method, curves.carried if carried else curves.apart)
    if not points:
        return None
    steps = list(range(1, max(point["step"] for point in points) + 1))
    axis = alt.Axis(values=steps, format="d", grid=False, tickCount=len(steps))
    x = alt.X("step:Q", title="steps of the task", scale=alt.Scale(nice=False, padding=8), axis=axis)
    y = alt.Y("wrong:Q", title="wrong steps so far")
    tooltip = ["method:N", "step:Q", alt.Tooltip("wrong:Q", format=".2f")]
    thin = style.data(implied).mark_line(strokeWidth=1, opacity=0.7).encode(x=x, y=y, color=style.colour(methods))
    return alt.layer(*_guessed(entries, x), thin, *style.lines(style.data(points).encode(x=x), y, methods, tooltip))


def _counted(method: str, wrong: list[float]) -> list[Record]:
    return [{"method": style.name(method), "step": step, "wrong": total} for step, total in enumerate(wrong, start=1)]


def _guessed(entries: list[Record], x: alt.X) -> list[alt.Chart]:
    chances = [entry["chance"] for entry in sorted(entries, key=lambda entry: float(entry["level"]))]
    if None in chances:
        return []
    points = _counted("chance", list(accumulate(1 - chance for chance in chances)))
    line = style.data(points).mark_line(color=style.MUTED, strokeDash=[4, 4])
    label = style.data(points[-1:]).mark_text(**BESIDE).encode(x=x, y="wrong:Q", text=alt.value("guessing"))
    return [line.encode(x=x, y="wrong:Q"), label]

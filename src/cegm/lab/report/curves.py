"""Charts over time and over length: learning curves, training loss, learning rates, context retention."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean
from typing import Any

import altair as alt

from cegm.lab.report import style
from cegm.lab.report.runs import Folder, Record, Run, finite

MOST_POINTS = 80
"""Points kept per line; a curve has no more detail than that at the size it is drawn."""


def learning_curves(folder: Folder, *, ending: bool = False) -> style.Drawing | None:
    """Validation loss over tokens, with `ending` only the second half, enlarged; None where no two points make a line."""
    lines = [
        (run.method, line["tokens"], line.get("bits_per_byte")) for run in folder.finished() for line in run.validation
    ]
    points = _bands(lines, "tokens")
    if ending and points:
        half = max(point["tokens"] for point in points) / 2
        points = [point for point in points if point["tokens"] >= half]
    if len({point["tokens"] for point in points}) < 2:
        return None
    x = alt.X("tokens:Q", title="training tokens", axis=alt.Axis(format="~s"), scale=alt.Scale(nice=False, zero=False))
    return band_chart(points, folder.methods, x, "validation loss (bits per byte)", ".3f", zero=False)


def training_loss(folder: Folder) -> style.Drawing | None:
    """Training loss of a single run, nats per token."""
    points = [
        {"step": line["step"], "loss": finite(line.get("loss"))}
        for run in folder.runs
        for line in thinned(run.train, 400)
    ]
    if not points:
        return None
    chart: alt.Chart = style.data(points).mark_line(color=style.looks(folder.methods)[0][0], strokeWidth=1.5)
    return chart.encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("loss:Q", title="training loss (nats per token)", scale=alt.Scale(zero=False)),
        tooltip=["step:Q", alt.Tooltip("loss:Q", format=".4f")],
    )


def learning_rates(folder: Folder, group: str) -> style.Drawing | None:
    """Learning rate over steps, of the first finished run of each method.

    Args:
        folder: What to draw.
        group: `lr_matrix` (weight matrices) or `lr_adamw` (embeddings, head and vectors).
    """
    points: list[Record] = []
    for place, method in enumerate(folder.methods):
        run = next((run for run in folder.finished() if run.method == method), None)
        own: list[Record] = [
            {"method": style.name(method), "step": line["step"], "rate": rate}
            for line in thinned(run.train if run else [], MOST_POINTS)
            if (rate := finite(line.get(group))) is not None
        ]
        style.mark_some(own, place, 0.15)
        points += own
    if not points:
        return None
    tooltip = ["method:N", "step:Q", alt.Tooltip("rate:Q", format=".3~e")]
    base = style.data(points).encode(x=alt.X("step:Q", title="step"), tooltip=tooltip)
    y = alt.Y("rate:Q", title="learning rate")
    return alt.layer(*style.lines(base, y, folder.methods, tooltip, 60, "datum.marked === true"))


def _retention_points(runs: list[Run], measure: str) -> list[Record]:
    """Mean, smallest and largest `accuracy`, `score` or `chance` over seeds, by method and length."""
    cells = [(run.method, *item) for run in runs for item in (run.result.get("retention") or {}).items()]
    return _bands([(method, length, cell.get(measure)) for method, length, cell in cells], "length")


def retention(folder: Folder, measure: str = "accuracy") -> style.Drawing | None:
    """Recall by length, with the chance line (accuracy only) and the length that was trained on."""
    points = _retention_points(folder.finished(), measure)
    if not points:
        return None
    lengths = sorted({point["length"] for point in points})
    x = alt.X(
        "length:Q",
        title="length of the text (tokens)",
        scale=alt.Scale(type="log", base=2, nice=False, padding=12),
        axis=alt.Axis(values=lengths, format="d", grid=False),
    )
    accuracy = measure == "accuracy"
    title = "questions answered correctly" if accuracy else "lead of the right answer (nats)"
    chart = band_chart(points, folder.methods, x, title, ".0%" if accuracy else ".2f", zero=accuracy)
    return alt.layer(*_retention_marks(folder, accuracy), chart)


def _retention_marks(folder: Folder, accuracy: bool) -> list[alt.Chart]:
    """Chance level (or zero margin) and trained length, in grey and labelled."""
    chance = _retention_points(folder.finished(), "chance")
    level = fmean(point["mean"] for point in chance) if accuracy and chance else 0.0
    rule = style.data([{"mean": level, "label": "chance"}])
    marks = [rule.mark_rule(color=style.MUTED, strokeDash=[4, 4]).encode(y="mean:Q")]
    label = {"baseline": "bottom", "color": style.MUTED, "fontSize": 11}
    if accuracy:
        text = rule.mark_text(align="right", dy=-3, **label)
        marks.append(text.encode(y="mean:Q", x=alt.value("width"), text="label:N"))
    trained = {int(run.result["trained_length"]) for run in folder.finished() if run.result.get("trained_length")}
    if len(trained) == 1:
        length = trained.pop()
        line = style.data([{"length": length, "label": f"trained at {length}"}])
        text = line.mark_text(align="left", dx=4, dy=-4, **label)
        marks.append(line.mark_rule(color=style.MUTED).encode(x="length:Q"))
        marks.append(text.encode(x="length:Q", y=alt.value("height"), text="label:N"))
    return marks


def thinned(lines: list[Any], most: int) -> list[Any]:
    """At most `most` of the lines, evenly spread, first and last included."""
    if len(lines) <= most:
        return lines
    return [lines[round(index * (len(lines) - 1) / (most - 1))] for index in range(most)]


def _bands(values: Iterable[tuple[str, Any, Any]], x: str) -> list[Record]:
    """Mean, smallest and largest value over seeds, of values by method and x."""
    seeds: dict[tuple[str, int], list[float]] = defaultdict(list)
    for method, at, value in values:
        number = finite(value)
        if number is not None:
            seeds[method, int(at)].append(number)
    points: dict[str, list[Record]] = defaultdict(list)
    for (method, place), own in sorted(seeds.items()):
        record = {"method": style.name(method), x: place, "mean": fmean(own), "low": min(own), "high": max(own)}
        points[method].append({**record, "seeds": len(own)})
    return [point for lines in points.values() for point in thinned(lines, MOST_POINTS)]


def band_chart(
    points: list[Record], methods: list[str], x: alt.X, title: str, number: str, zero: bool
) -> style.Drawing:
    """Mean line with marks and a band from the lowest to the highest seed.

    Args:
        points: `method`, `tokens`, `length` or `level`, `mean`, `low`, `high`, and perhaps the number of `seeds`.
        methods: In the order of the legend.
        x: The horizontal axis.
        title: Title of the vertical axis.
        number: Format of its labels.
        zero: Whether it begins at zero.
    """
    percent = "%" in number
    field = next(name for name in ("tokens", "length", "level") if name in points[0])
    base = style.data(points).encode(x=x)
    axis = alt.Axis(format=number) if percent else alt.Axis()
    y = alt.Y("mean:Q", title=title, scale=alt.Scale(zero=zero), axis=axis)
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=title), y2="high:Q", color=style.colour(methods))
    titles = {"mean": "mean", "low": "lowest seed", "high": "highest seed"}
    tooltip = [
        "method:N",
        alt.Tooltip(f"{field}:Q", format=",~g"),
        *(alt.Tooltip(f"{name}:Q", format=".2%" if percent else ".4f", title=told) for name, told in titles.items()),
        *([alt.Tooltip("seeds:Q", title="seeds")] if "seeds" in points[0] else []),
    ]
    return alt.layer(band, *style.lines(base, y, methods, tooltip))

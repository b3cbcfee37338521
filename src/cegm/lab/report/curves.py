"""Charts over time and over length: learning curves, training loss, learning rates, context retention."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import Any

import altair as alt

from cegm.lab.report import style
from cegm.lab.report.folder import Folder, Record, Run, finite

MOST_POINTS = 80
"""Points kept per line; a curve has no more detail than that at the size it is drawn."""


def learning_curve_points(runs: list[Run]) -> list[Record]:
    """Mean, smallest and largest validation loss over seeds, by method and tokens."""
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for run in runs:
        for line in run.validation:
            loss = finite(line.get("bits_per_byte"))
            if loss is not None:
                values[run.method, int(line["tokens"])].append(loss)
    return _bands(values, "tokens")


def learning_curves(folder: Folder, *, ending: bool = False) -> style.Drawing | None:
    """Validation loss over tokens, with `ending` only the second half, enlarged; None where no two points make a line."""
    points = learning_curve_points(folder.finished())
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
    look = style.looks(folder.methods)[0]
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=points))
        .mark_line(color=look[0], strokeWidth=1.5)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("loss:Q", title="training loss (nats per token)", scale=alt.Scale(zero=False)),
            tooltip=["step:Q", alt.Tooltip("loss:Q", format=".4f")],
        )
    )
    return chart


def learning_rates(folder: Folder, group: str) -> style.Drawing | None:
    """Learning rate over steps, of the first finished run of each method.

    Args:
        folder: What to draw.
        group: `lr_matrix` (weight matrices) or `lr_adamw` (embeddings, head and vectors).
    """
    points = []
    for method in folder.methods:
        run = next((run for run in folder.finished() if run.method == method), None)
        for line in thinned(run.train if run else [], MOST_POINTS):
            rate = finite(line.get(group))
            if rate is not None:
                points.append({"method": style.name(method), "step": line["step"], "rate": rate})
    if not points:
        return None
    base: Any = alt.Chart(alt.InlineData(values=points)).encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("rate:Q", title="learning rate"),
        color=style.colour(folder.methods),
        tooltip=["method:N", "step:Q", alt.Tooltip("rate:Q", format=".3~e")],
    )
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=style.dash(folder.methods))
    return alt.layer(lines, _sparse_marks(base, folder, points))


def _sparse_marks(base: Any, folder: Folder, points: list[Record]) -> Any:
    """A few shapes on each line, at other steps for each method, so that lines that coincide can be told apart."""
    for place, method in enumerate(map(style.name, folder.methods)):
        own = [point for point in points if point["method"] == method]
        for share in (0.15, 0.45, 0.75):
            if own:
                own[round((share + 0.08 * place) * (len(own) - 1)) % len(own)]["marked"] = True
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(shape=style.shape(folder.methods))
    return marks.transform_filter("datum.marked === true")


def retention_points(runs: list[Run], measure: str) -> list[Record]:
    """Mean, smallest and largest `accuracy`, `score` or `chance` over seeds, by method and length."""
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for run in runs:
        for length, cell in (run.result.get("retention") or {}).items():
            value = finite(cell.get(measure))
            if value is not None:
                values[run.method, int(length)].append(value)
    return _bands(values, "length")


def retention(folder: Folder, measure: str = "accuracy") -> style.Drawing | None:
    """Recall by length, with the chance line (accuracy only) and the length that was trained on."""
    points = retention_points(folder.finished(), measure)
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
    marks: list[alt.Chart] = []
    chance = retention_points(folder.finished(), "chance")
    level = fmean(point["mean"] for point in chance) if accuracy and chance else 0.0
    rule = alt.Chart(alt.InlineData(values=[{"mean": level, "label": "chance"}]))
    marks.append(rule.mark_rule(color=style.MUTED, strokeDash=[4, 4]).encode(y="mean:Q"))
    if accuracy:
        text = rule.mark_text(align="right", baseline="bottom", dy=-3, color=style.MUTED, fontSize=11)
        marks.append(text.encode(y="mean:Q", x=alt.value("width"), text="label:N"))
    trained = {int(run.result["trained_length"]) for run in folder.finished() if run.result.get("trained_length")}
    if len(trained) == 1:
        length = trained.pop()
        line = alt.Chart(alt.InlineData(values=[{"length": length, "label": f"trained at {length}"}]))
        marks.append(line.mark_rule(color=style.MUTED).encode(x="length:Q"))
        words = line.mark_text(align="left", baseline="bottom", dx=4, dy=-4, color=style.MUTED, fontSize=11)
        marks.append(words.encode(x="length:Q", y=alt.value("height"), text="label:N"))
    return marks


def thinned(lines: list[Record], most: int) -> list[Record]:
    """At most `most` of the lines, evenly spread, first and last included."""
    if len(lines) <= most:
        return lines
    return [lines[round(index * (len(lines) - 1) / (most - 1))] for index in range(most)]


def _bands(values: dict[tuple[str, int], list[float]], x: str) -> list[Record]:
    points: dict[str, list[Record]] = defaultdict(list)
    for (method, at), seeds in sorted(values.items()):
        record = {"method": style.name(method), x: at, "mean": fmean(seeds), "low": min(seeds), "high": max(seeds)}
        points[method].append({**record, "seeds": len(seeds)})
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
    axis = alt.Axis(format=number) if "%" in number else alt.Axis()
    field = next(name for name in ("tokens", "length", "level") if name in points[0])
    base: Any = alt.Chart(alt.InlineData(values=points)).encode(x=x, color=style.colour(methods))
    y = alt.Y("mean:Q", title=title, scale=alt.Scale(zero=zero), axis=axis)
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=style.dash(methods))
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip(f"{field}:Q", format=",~g"),
        alt.Tooltip("mean:Q", format=".2%" if "%" in number else ".4f", title="mean"),
        alt.Tooltip("low:Q", format=".2%" if "%" in number else ".4f", title="lowest seed"),
        alt.Tooltip("high:Q", format=".2%" if "%" in number else ".4f", title="highest seed"),
        *([alt.Tooltip("seeds:Q", title="seeds")] if "seeds" in points[0] else []),
    ]
    marks = base.mark_point(filled=True, size=45, opacity=1).encode(y=y, shape=style.shape(methods), tooltip=tooltip)
    return alt.layer(band, line, marks)

"""Effects as forests: a row per pair, its effect with interval or seeds, and a dashed line at "no difference"."""

from __future__ import annotations

from statistics import median
from typing import Any

import altair as alt

from cegm.lab.report import style, words
from cegm.lab.report.judged import judged
from cegm.lab.report.runs import Folder, Record

ROW = 22
"""Pixels of a row."""

FAR = 3.0
"""Effects this many times the median size are cut at the edge."""

NUMBERS = ("effect", "low", "high", "seeds")
"""Of a row; everything else names it."""


def difference_points(folder: Folder, measure: str) -> list[Record]:
    """Effect of every pair with its interval or, in its place, its points, as the verdict states them; of an ablation, lowest first."""
    found = judged(folder)
    rows = [
        {
            "pair": " against ".join(words.names(entry["pair"][: 1 if folder.is_ablation else 2])),
            **{"effect": entry["effect"], "word": entry["word"]},
            **dict(zip(("low", "high"), entry["interval"] or (None, None), strict=True)),
            "seeds": {}
            if entry["interval"] and not folder.is_ablation
            else dict(zip(entry["seeds"], entry.get("points", ()), strict=False)),
        }
        for entry in (found.measure(measure) if found else {}).get("pairs", [])
        if entry["effect"] is not None
    ]
    return sorted(rows, key=lambda row: float(row["effect"])) if folder.is_ablation else rows


def pairs(rows: list[Record], title: str, neutral: float = 0.0) -> style.Drawing | None:
    """A row per pair, coloured by its word, with the dot of each seed.

    Args:
        rows: `pair`, `effect`, `low` and `high` (None for no interval), `word`, and `seeds` with the effect on each.
        title: Axis title.
        neutral: Effect of "no difference".
    """
    if not rows:
        return None
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=6)
    scale = alt.Scale(domain=[row["pair"] for row in rows])
    colours, shapes = (
        alt.Scale(domain=list(style.WORDS), range=list(looks)) for looks in zip(*style.WORDS.values(), strict=True)
    )
    return forest(
        rows,
        title,
        {"y": alt.Y("pair:N", title=None, sort=None, scale=scale, axis=axis)},
        {"color": alt.Color("word:N", scale=colours), "shape": alt.Shape("word:N", scale=shapes)},
        {"size": 22, "color": style.INK, "opacity": 0.7, "yOffset": 7},
        ".4~g",
        [(f"{row['effect']:{'.3f' if neutral else '+.4f'}}", "", style.WORDS[row["word"]][0]) for row in rows],
        neutral,
    )


def forest(
    rows: list[Record],
    title: str,
    place: dict[str, Any],
    looks: dict[str, Any],
    rings: dict[str, Any],
    number: str,
    ends: list[tuple[str, str, str]],
    neutral: float = 0.0,
) -> style.Drawing:
    """Means with their intervals or the ring of each seed; what lies far outside all others stands at the edge as a number.

    Args:
        rows: `effect`, `low` and `high` (None for no interval), `word`, `seeds` with the effect on each, and what names a row.
        title: Of the axis of the effects.
        place: Encodings of where a row stands.
        looks: Encodings of its `color` and of the `shape` of its mean.
        rings: Looks of its seeds; without a colour, that of the row.
        number: Format of tooltips.
        ends: How each row is told if it lies beyond the edge, so that one disaster does not flatten the rest: number, words, colour.
        neutral: Effect of "no difference".
    """
    low, high = domain(rows, neutral)
    x = alt.X("effect:Q", title=title, scale=alt.Scale(domain=[low, high], nice=False))
    names = [key for key in rows[0] if key not in (*NUMBERS, "word")]
    near = [
        {key: value for key, value in row.items() if key != "seeds"} for row in rows if low <= row["effect"] <= high
    ]
    seeds = [
        {**{name: row[name] for name in names}, "seed": seed, "difference": value}
        for row in rows
        for seed, value in row["seeds"].items()
        if low <= value <= high
    ]
    base = style.data(near).encode(**place, color=looks["color"])
    tooltip = [
        *(f"{name}:N" for name in (*names, "word")),
        *(alt.Tooltip(f"{name}:Q", format=number) for name in NUMBERS[:3]),
    ]
    dots = style.data(seeds).mark_point(**rings).encode(
        **place, **({} if "color" in rings else {"color": looks["color"]}), x=alt.X("difference:Q", title=title),
        tooltip=[*(f"{name}:N" for name in (*names, "seed")), alt.Tooltip("difference:Q", format=number)],
    )  # fmt: skip
    return alt.layer(
        style.data([{"effect": neutral}]).mark_rule(color=style.INK, strokeDash=[4, 3]).encode(x=x),
        base.transform_filter("datum.low !== null")
        .mark_rule(strokeWidth=3, clip=True)
        .encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        dots,
        base.mark_point(filled=True, size=90, opacity=1).encode(x=x, shape=looks["shape"], tooltip=tooltip),
        *(
            _beyond({name: row[name] for name in names}, place, row["effect"] < low, *end)
            for row, end in zip(rows, ends, strict=True)
            if not low <= row["effect"] <= high
        ),
    )


def domain(rows: list[Record], neutral: float) -> tuple[float, float]:
    """Ends of an axis of effects: all marks and "no difference", but no further from it than `FAR` times the median row reaches."""
    marks = [
        [
            mark - neutral
            for mark in (row["effect"], row["low"], row["high"], *row["seeds"].values())
            if mark is not None
        ]
        for row in rows
    ]
    most = FAR * median(max(map(abs, own)) for own in marks)
    low, high = (end((0.0, *(mark for own in marks for mark in own))) for end in (min, max))
    low, high = max(low, -most), min(high, most)
    margin = 0.04 * (high - low) or 1e-3
    return neutral + low - margin, neutral + high + margin


def _beyond(names: Record, place: dict[str, Any], left: bool, number: str, word: str, colour: str) -> Any:
    """The number of an effect beyond the edge, with where it is."""
    end = f"\N{LEFTWARDS ARROW} {number}" if left else f"{number} \N{RIGHTWARDS ARROW}"
    mark = style.data([{**names, "told": f"{end} {word}".strip()}])
    mark = mark.mark_text(align="left" if left else "right", dx=4 if left else -4, fontWeight=600, color=colour)
    return mark.encode(**place, x=alt.value(0 if left else "width"), text="told:N")


def rows_height(rows: list[Record]) -> int:
    """Pixels that a forest of these rows takes."""
    return max(200, 60 + ROW * len(rows))

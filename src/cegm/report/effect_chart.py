"""The plot of an ablation: a row per change with its part, every seed, mean and interval, and what a step costs."""

from __future__ import annotations

from statistics import median
from typing import Any, Literal

import altair as alt

from cegm.report import style, words
from cegm.report.folder import Ablation, Record

ROW = 18
"""Pixels per change."""

LABELS, EFFECT, COST, TIME, STATE = (394, 288, 96, 40, 68)
"""Widths of the columns: names, effects, cost of a step, its number, bytes of state. Together what a README shows unshrunk."""

PART = 122
"""Where the names of changes start, after those of their parts."""

FAR = 3.0
"""Effects this many times the median size are cut at the edge of the plot, so that one disaster does not flatten the rest."""


TICKS = "datum.value ? format(datum.value, '+.3~f') : '0'"
"""Labels of the axis of effects."""


def effects(ablation: Ablation) -> Any:
    """All columns side by side, lowest effect first; None without a change."""
    rows = effect_rows(ablation)
    if not rows:
        return None
    state = _numbers(rows, "state", ".1f", "B/weight", STATE)
    if all(row["ratio"] is None for row in rows):
        return alt.hconcat(_labels(rows), _effects(rows, ablation, EFFECT + COST + TIME), state, spacing=0)
    time = _numbers(rows, "ratio", ".2f", f"step {words.TIMES}", TIME)
    return alt.hconcat(_labels(rows), _effects(rows, ablation, EFFECT), _costs(rows), time, state, spacing=0)


def effect_rows(ablation: Ablation) -> list[Record]:
    """One record per change, as the plot shows it."""
    rows = []
    for rank, arm in enumerate(ablation.arms):
        found, cost = arm["difference"] or {}, arm["cost"] or {}
        failed = len(arm["failed"])
        rows.append(
            {
                "rank": rank,
                "part": arm["part"],
                "change": arm["name"] + (f"  ({failed} failed)" if failed else ""),
                "word": arm["word"],
                "effect": found.get("estimate"),
                "low": found.get("low"),
                "high": found.get("high"),
                "ratio": cost.get("estimate"),
                "ratio_low": cost.get("low"),
                "ratio_high": cost.get("high"),
                "blocks": [] if cost.get("low") is not None else cost.get("points", []),
                "state": arm["state_bytes_per_weight"],
            }
        )
    return rows


def seed_rows(ablation: Ablation) -> list[Record]:
    """Difference to the base of every seed that finished under both."""
    base = ablation.effects["base"]["losses"]
    return [
        {"rank": rank, "change": arm["name"], "seed": int(seed), "difference": loss - base[seed]}
        for rank, arm in enumerate(ablation.arms)
        for seed, loss in arm["losses"].items()
        if seed in base
    ]


def domain(rows: list[Record], seeds: list[Record]) -> tuple[float, float]:
    """Ends of the axis of effects: all marks and zero, but no further than `FAR` times the median row reaches."""
    reach: dict[int, list[float]] = {row["rank"]: [row["effect"]] for row in rows if row["effect"] is not None}
    for row in rows:
        reach.get(row["rank"], []).extend(end for end in (row["low"], row["high"]) if end is not None)
    for seed in seeds:
        reach[seed["rank"]].append(seed["difference"])
    marks = [mark for own in reach.values() for mark in own]
    most = FAR * median(max(map(abs, own)) for own in reach.values()) if reach else 0.0
    low, high = max(min([0.0, *marks]), -most), min(max([0.0, *marks]), most)
    margin = 0.04 * (high - low) or 1e-3
    return low - margin, high + margin


def _panel(rows: list[Record], width: int, *layers: Any) -> Any:
    """Layers over stripes that lead the eye from a name to its numbers."""
    shaded = [{"rank": row["rank"]} for row in rows if row["rank"] % 2]
    stripes = alt.Chart(alt.InlineData(values=shaded)).mark_bar(color="#f4f4f1", size=ROW)
    stripes = stripes.encode(y=_rank(rows), x=alt.value(0), x2=alt.value(width))
    return alt.layer(stripes, *layers).properties(width=width, height=ROW * len(rows))


def _rank(rows: list[Record]) -> alt.Y:
    return alt.Y("rank:O", axis=None, scale=alt.Scale(domain=[row["rank"] for row in rows], padding=0))


def _chart(values: list[Record], rows: list[Record]) -> Any:
    return alt.Chart(alt.InlineData(values=values)).encode(y=_rank(rows))


def _head(text: str, x: float, align: Literal["left", "center", "right"] = "left") -> Any:
    """Heading of a column, above the first row."""
    mark = alt.Chart(alt.InlineData(values=[{}])).mark_text(
        align=align, baseline="bottom", fontSize=11, fontWeight=600, color=style.INK
    )
    return mark.encode(x=alt.value(x), y=alt.value(-5), text=alt.value(text))


def _text(rows: list[Record], field: str, x: float, limit: int, **look: Any) -> Any:
    mark = _chart(rows, rows).mark_text(**{"align": "left", "fontSize": 11, "limit": limit, **look})
    return mark.encode(x=alt.value(x), text=f"{field}:N", tooltip=f"{field}:N")


def _labels(rows: list[Record]) -> Any:
    return _panel(
        rows,
        LABELS,
        _text(rows, "part", 4, PART - 10, color=style.MUTED),
        _text(rows, "change", PART, LABELS - PART - 6, color=style.INK),
        _head("part", 4),
        _head("change", PART),
    )


def _effects(rows: list[Record], ablation: Ablation, width: int) -> Any:
    """Seeds, means and intervals around the base's dashed line; what lies beyond the edge is told in numbers."""
    seeds = seed_rows(ablation)
    low, high = domain(rows, seeds)
    near = [row for row in rows if row["effect"] is not None and low <= row["effect"] <= high]
    scale = alt.Scale(domain=[low, high], nice=False)
    title = [ablation.effects["measure"], "change minus base"]

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(labelExpr=TICKS, tickCount=5))

    color = alt.Color("word:N", scale=_words(0), legend=alt.Legend())
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}]))
    dots = [seed for seed in seeds if low <= seed["difference"] <= high]
    bars = _chart([row for row in near if row["low"] is not None], rows).mark_rule(strokeWidth=2, clip=True)
    means = _chart(near, rows).mark_point(filled=True, size=62, opacity=1)
    numbers = [alt.Tooltip(f"{field}:Q", format="+.4f") for field in ("effect", "low", "high")]
    return _panel(
        rows,
        width,
        zero.mark_rule(color=style.INK, strokeDash=[4, 3]).encode(x=x("zero")),
        _chart(dots, rows)
        .mark_point(filled=True, size=9, color=style.INK, opacity=0.55, yOffset=5.5)
        .encode(x=x("difference"), tooltip=["change:N", "seed:N", alt.Tooltip("difference:Q", format="+.4f")]),
        bars.encode(x=x("low"), x2="high:Q", color=color),
        means.encode(
            x=x("effect"),
            color=color,
            shape=alt.Shape("word:N", scale=_words(1), legend=alt.Legend()),
            tooltip=["change:N", "part:N", "word:N", *numbers],
        ),
        *_beyond(rows, low, high, width),
        zero.mark_text(text="\N{LEFTWARDS ARROW} better", align="right", dx=-5, fontSize=11).encode(
            x=x("zero"), y=alt.value(-11)
        ),
        zero.mark_text(text="worse \N{RIGHTWARDS ARROW}", align="left", dx=5, fontSize=11).encode(
            x=x("zero"), y=alt.value(-11)
        ),
    )


def _words(place: int) -> alt.Scale:
    """Scale from words to colours (0) or shapes (1)."""
    return alt.Scale(domain=list(style.WORDS), range=[look[place] for look in style.WORDS.values()])


def _beyond(rows: list[Record], low: float, high: float, width: int) -> list[Any]:
    """Rows without a mean inside the plot: the number and where it is, or that there is none."""
    right = [
        {**row, "told": f"{words.signed(row['effect'])} \N{RIGHTWARDS ARROW}"}
        for row in rows
        if row["effect"] is not None and row["effect"] > high
    ]
    left = [
        {**row, "told": f"\N{LEFTWARDS ARROW} {words.signed(row['effect'])}"}
        for row in rows
        if row["effect"] is not None and row["effect"] < low
    ]
    none = [{**row, "told": "not compared"} for row in rows if row["effect"] is None]
    places = ((right, width - 4, "right"), (left, 4, "left"), (none, width - 4, "right"))
    return [
        _chart(values, rows)
        .mark_text(align=align, fontSize=11, fontWeight=600, color=style.INK)
        .encode(x=alt.value(place), text="told:N")
        for values, place, align in places
        if values
    ]


def _costs(rows: list[Record]) -> Any:
    timed = [row for row in rows if row["ratio"] is not None]
    scale = alt.Scale(zero=False, padding=8)
    one = alt.Chart(alt.InlineData(values=[{"one": 1}]))

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title="time, base = 1", scale=scale, axis=alt.Axis(format=".2~f", tickCount=2))

    spans = [row for row in timed if row["ratio_low"] is not None]
    blocks = [
        {"rank": row["rank"], "change": row["change"], "block": block} for row in timed for block in row["blocks"]
    ]
    numbers = [alt.Tooltip(f"{field}:Q", format=".3f") for field in ("ratio", "ratio_low", "ratio_high")]
    return _panel(
        rows,
        COST,
        one.mark_rule(color=style.INK, strokeDash=[4, 3]).encode(x=x("one")),
        _chart(spans, rows).mark_rule(strokeWidth=1.5, color=style.MUTED).encode(x=x("ratio_low"), x2="ratio_high:Q"),
        _chart(blocks, rows).mark_point(size=20, color=style.MUTED).encode(x=x("block")),
        _chart(timed, rows)
        .mark_point(filled=True, shape="square", size=26, color="#0072B2", opacity=1)
        .encode(x=x("ratio"), tooltip=["change:N", *numbers]),
        _head("whole step", COST / 2, "center"),
    )


def _numbers(rows: list[Record], field: str, number: str, head: str, width: int) -> Any:
    """A column of text, so that a printed plot can be read off."""
    told = [{"rank": row["rank"], "told": "" if row[field] is None else format(row[field], number)} for row in rows]
    right = width - 6.0
    return _panel(rows, width, _text(told, "told", right, width, align="right"), _head(head, right, "right"))

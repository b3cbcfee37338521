"""One forest of all measures: the subject against every other method, in percent, so that they share an axis."""

from __future__ import annotations

import textwrap
from statistics import fmean
from typing import Any

import altair as alt

from cegm.lab.report import style, words
from cegm.lab.report.dots import domain
from cegm.lab.report.folder import Record
from cegm.lab.report.judged import Judged
from cegm.lab.report.overhead_chart import own_shape
from cegm.lab.report.tables import SHARED_MACHINE

LABEL = 20
"""Characters of a line of a row's name."""

ROW = 15
"""Pixels of one method in a row."""


def rows(verdict: Judged, overhead: Record | None) -> tuple[list[Record], list[str]]:
    """A row per measure and other method, and the measures that have no percent.

    Args:
        verdict: The verdict.
        overhead: Content of `overhead.json`, the only source of times.

    Returns:
        Rows with `measure`, `against`, `effect`, `low`, `high` (None for no interval), `word` and `seeds`, all numbers in
        percent of the other method's mean, positive where the subject is better; titles of what is left out.
    """
    found, left = [], []
    for measure in verdict.verdict["measures"]:
        if measure["name"] == SHARED_MACHINE:
            continue
        entries = [(other, verdict.entry(measure["name"], other)) for other in verdict.methods[1:]]
        own = [row for other, entry in entries if entry and (row := _row(measure, other, entry))]
        found += own
        if len(own) < sum(entry is not None for _, entry in entries):
            left.append(_name(measure))
    return found + _times(verdict, overhead), left


def _row(measure: Record, other: str, entry: Record) -> Record | None:
    """None where the other's mean is no measure of size."""
    ratio = measure["effect"] == "ratio"
    whole = 1.0 if ratio else _mean(measure, other)
    if not whole:
        return None
    sign = 1 if measure["better"] == "higher" else -1

    def percent(effect: float) -> float:
        return 100 * sign * (effect - ratio) / abs(whole)

    low, high = sorted(map(percent, entry["interval"])) if entry["interval"] else (None, None)
    seeds = (
        {}
        if entry["interval"] or entry["p"] is None
        else dict(zip(entry.get("seeds", ()), entry.get("points", ()), strict=False))
    )
    return {
        **{"measure": _name(measure), "against": style.name(other), "effect": percent(entry["effect"])},
        **{"low": low, "high": high, "word": entry["word"]},
        "seeds": {seed: percent(point) for seed, point in seeds.items()},
    }


def _mean(measure: Record, other: str) -> float:
    values = [v for v in measure["methods"].get(other, {}).get("values", {}).values() if v is not None]
    return fmean(values) if values else 0.0


def _name(measure: Record) -> str:
    return str(measure["title"]).partition(",")[0]


def _times(verdict: Judged, overhead: Record | None) -> list[Record]:
    """Time of a step of the subject over the reference's; blocks of steps stand where seeds do."""
    point = own_shape(overhead)
    if overhead is None or point is None or overhead["reference"] not in verdict.methods[1:]:
        return []
    ratio = point["methods"].get(verdict.subject, {}).get("ratio")
    if ratio is None:
        return []
    blocks = ratio["points"] if ratio["low"] is None else []
    ends = [None, None] if ratio["low"] is None else [100 * (1 - ratio[end]) for end in ("high", "low")]
    return [
        {
            **{"measure": "Time per step", "against": style.name(overhead["reference"]), "word": ""},
            **{"effect": 100 * (1 - ratio["estimate"]), "low": ends[0], "high": ends[1]},
            "seeds": {place: 100 * (1 - block) for place, block in enumerate(blocks)},
        }
    ]


def height(found: list[Record]) -> int:
    """Pixels of the forest of these rows."""
    measures = len({row["measure"] for row in found})
    return 30 + measures * max(32, ROW * len({row["against"] for row in found}) + 6)


def forest(found: list[Record], methods: list[str]) -> style.Drawing | None:
    """A band per measure and in it a row per other method: colour is the method, shape the word.

    Args:
        found: As `rows` gives them; None is drawn of none.
        methods: All methods in the order of the page.
    """
    if not found:
        return None
    others = [method for method in methods if style.name(method) in {row["against"] for row in found}]
    shown = [{**row, "measure": _lines(row["measure"])} for row in found]
    low, high = domain(shown, 0.0)
    title = "worse \N{LEFTWARDS ARROW}  % of the other's mean  \N{RIGHTWARDS ARROW} better"
    scale = alt.Scale(domain=[low, high], nice=False)
    x = alt.X("effect:Q", title=title, scale=scale)
    y: Any = alt.Y(
        "measure:N",
        title=None,
        sort=None,
        scale=alt.Scale(domain=list(dict.fromkeys(row["measure"] for row in shown)), paddingInner=0.2),
        axis=alt.Axis(grid=False, ticks=False, domain=False, labelPadding=6, labelExpr="split(datum.label, '\\n')"),
    )
    offset = alt.YOffset("against:N", sort=None, scale=alt.Scale(domain=[style.name(method) for method in others]))
    looks = style.looks(methods)
    colours = alt.Scale(
        domain=[style.name(method) for method in others],
        range=[look.colour for method, look in zip(methods, looks, strict=True) if method in others],
    )
    colour = alt.Color("against:N", scale=colours, legend=alt.Legend(labelExpr="'against ' + datum.label", columns=2))
    words_of = {**{word: look[1] for word, look in style.WORDS.items()}, "": "diamond"}
    present = [word for word in words_of if any(row["word"] == word for row in shown)]
    names = {word: word or "no word" for word in present}
    near = [
        {**{name: value for name, value in row.items() if name != "seeds"}, "word": names[row["word"]]}
        for row in shown
        if low <= row["effect"] <= high
    ]
    seeds = [
        {"measure": row["measure"], "against": row["against"], "seed": seed, "percent": value}
        for row in shown
        for seed, value in row["seeds"].items()
        if low <= value <= high
    ]
    shapes = alt.Scale(domain=list(names.values()), range=[words_of[word] for word in present])
    zero = alt.Chart(alt.InlineData(values=[{"effect": 0}])).mark_rule(color=style.INK, strokeDash=[4, 3]).encode(x=x)
    base: Any = alt.Chart(alt.InlineData(values=near)).encode(y=y, yOffset=offset, color=colour)
    bars = base.transform_filter("datum.low !== null").mark_rule(strokeWidth=3, clip=True)
    tooltip: list[Any] = ["measure:N", "against:N", "word:N"]
    tooltip += [alt.Tooltip(f"{name}:Q", format="+.2f") for name in ("effect", "low", "high")]
    means = base.mark_point(filled=True, size=90, opacity=1).encode(
        x=x,
        shape=alt.Shape("word:N", scale=shapes, legend=alt.Legend(symbolFillColor=style.MUTED, columns=2)),
        tooltip=tooltip,
    )
    rings: Any = alt.Chart(alt.InlineData(values=seeds)).mark_point(size=26, opacity=0.8)
    rings = rings.encode(
        y=y, yOffset=offset, x=alt.X("percent:Q", title=title), color=colour,
        tooltip=["measure:N", "against:N", "seed:N", alt.Tooltip("percent:Q", format="+.2f")],
    )  # fmt: skip
    beyond = [_beyond(row, y, offset, row["effect"] < low) for row in shown if not low <= row["effect"] <= high]
    return alt.layer(zero, bars.encode(x=alt.X("low:Q", title=title), x2="high:Q"), rings, means, *beyond)


def _lines(name: str) -> str:
    """A name in lines short enough for a phone."""
    return "\n".join(textwrap.wrap(name, LABEL))


def _beyond(row: Record, y: Any, offset: Any, left: bool) -> Any:
    """The number of an effect beyond the edge, with where it is and its word."""
    size = f"{words.signed(row['effect'], 0)} %"
    told = f"\N{LEFTWARDS ARROW} {size}" if left else f"{size} \N{RIGHTWARDS ARROW}"
    place = {"measure": row["measure"], "against": row["against"], "told": f"{told} {row['word']}".strip()}
    mark: Any = alt.Chart(alt.InlineData(values=[place]))
    mark = mark.mark_text(align="left" if left else "right", dx=4 if left else -4, fontWeight=600, color=style.INK)
    return mark.encode(y=y, yOffset=offset, x=alt.value(0 if left else "width"), text="told:N")

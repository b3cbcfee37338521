"""One forest of all measures: the subject against every other method, in percent, so that they share an axis."""

from __future__ import annotations

import textwrap
from statistics import fmean

import altair as alt

from cegm.lab.report import forest, style, words
from cegm.lab.report.judged import Judged
from cegm.lab.report.overhead_chart import own_shape
from cegm.lab.report.runs import Record

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
    for measure in verdict.shown:
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
    names = {"measure": _name(measure), "against": style.name(other), "word": entry["word"]}
    marks = {seed: percent(point) for seed, point in seeds.items()}
    return {**names, "effect": percent(entry["effect"]), "low": low, "high": high, "seeds": marks}


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
            **{"measure": "Time per step", "against": style.name(overhead["reference"]), "word": "no word"},
            **{"effect": 100 * (1 - ratio["estimate"]), "low": ends[0], "high": ends[1]},
            "seeds": {place: 100 * (1 - block) for place, block in enumerate(blocks)},
        }
    ]


def height(found: list[Record]) -> int:
    """Pixels of the forest of these rows."""
    measures = len({row["measure"] for row in found})
    return 30 + measures * max(32, ROW * len({row["against"] for row in found}) + 6)


def chart(found: list[Record], methods: list[str]) -> style.Drawing | None:
    """A band per measure and in it a row per other method: colour is the method, shape the word.

    Args:
        found: As `rows` gives them; None is drawn of none.
        methods: All methods in the order of the page.
    """
    if not found:
        return None
    shown = [{**row, "measure": "\n".join(textwrap.wrap(row["measure"], LABEL))} for row in found]
    looks = dict(zip(methods, style.looks(methods), strict=True))
    others = {style.name(method): looks[method].colour for method in methods}
    others = {name: colour for name, colour in others.items() if name in {row["against"] for row in found}}
    colours = alt.Scale(domain=list(others), range=list(others.values()))
    shapes = {**{word: shape for word, (_, shape) in style.WORDS.items()}, "no word": "diamond"}
    shapes = {word: shape for word, shape in shapes.items() if any(row["word"] == word for row in shown)}
    scale = alt.Scale(domain=list(shapes), range=list(shapes.values()))
    bands = alt.Scale(domain=list(dict.fromkeys(row["measure"] for row in shown)), paddingInner=0.2)
    axis = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=6, labelExpr="split(datum.label, '\\n')")
    legend = alt.Legend(labelExpr="'against ' + datum.label", columns=2)
    return forest.forest(
        shown,
        "worse \N{LEFTWARDS ARROW}  % of the other's mean  \N{RIGHTWARDS ARROW} better",
        {
            "y": alt.Y("measure:N", title=None, sort=None, scale=bands, axis=axis),
            "yOffset": alt.YOffset("against:N", sort=None, scale=alt.Scale(domain=list(others))),
        },
        {
            "color": alt.Color("against:N", scale=colours, legend=legend),
            "shape": alt.Shape("word:N", scale=scale, legend=alt.Legend(symbolFillColor=style.MUTED, columns=2)),
        },
        {"size": 26, "opacity": 0.8},
        "+.2f",
        [(f"{words.signed(row['effect'], 0)} %", row["word"].removeprefix("no word"), style.INK) for row in shown],
    )

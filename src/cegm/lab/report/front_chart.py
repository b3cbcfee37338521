"""What methods forget at equal new loss: the chart of every measure, the table of ratios, and the sentences of the shares."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import altair as alt

from cegm.lab.baselines import ordered
from cegm.lab.report import style, words
from cegm.lab.report.runs import Record
from cegm.lab.report.words import told

ACCURACY = "accuracy"


def methods(front: Record) -> list[str]:
    """The subject first, the reference last."""
    return [*(name for name in ordered(front["methods"]) if name != front["reference"]), front["reference"]]


def points(front: Record, measure: str) -> list[Record]:
    """By method and rate, where the rate ended: means over the seeds on which it did, in the unit of the axes."""
    ends: dict[tuple[str, float], list[Record]] = defaultdict(list)
    for each in front["endings"]:
        if measure in each.get("forgotten", ()):
            ends[each["method"], each["rate"]].append(each)
    unit = next(one["unit"] for one in front["measures"] if one["name"] == measure)
    scale = 100 if unit == ACCURACY else 1
    return [
        {
            **{"method": style.name(method), "rate": rate, "learning rate": f"{rate:g}", "seeds": len(own)},
            "new": fmean(each["new"] for each in own),
            "forgotten": scale * fmean(each["forgotten"][measure] for each in own),
        }
        for (method, rate), own in sorted(ends.items())
    ]


def chart(front: Record, measure: Record) -> style.Drawing | None:
    """A line per method through its rates, new loss on x and forgotten on y; None without a point."""
    drawn = points(front, measure["name"])
    if not drawn:
        return None
    names = [method for method in methods(front) if any(row["method"] == style.name(method) for row in drawn)]
    unit = "percentage points" if measure["unit"] == ACCURACY else measure["unit"]
    x = alt.X("new:Q", title="new loss (nats per token)", scale=alt.Scale(zero=False, padding=10))
    y = alt.Y("forgotten:Q", title=f"forgotten ({unit})", scale=alt.Scale(zero=True, padding=8))
    tooltip = [
        "method:N",
        alt.Tooltip("learning rate:N"),
        alt.Tooltip("new:Q", title="new loss", format=".4f"),
        alt.Tooltip("forgotten:Q", format=".4f"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    base = style.data(drawn).encode(x=x, order="rate:Q")
    return alt.layer(*style.lines(base, y, names, tooltip, 70))


def rows(front: Record) -> list[Record]:
    """Of every measure and method but the reference: `title`, `unit` of differences, `method`, and `cells`, size and spread at every share."""
    return [
        {
            "title": told(
                "sentences", "front_measure", title=measure["title"], seen=words.names(measure.get("seen", ()))
            ),
            "unit": words.effect_unit({**measure, "effect": "difference"}),
            "method": style.name(method),
            "cells": [_cell(measure, pair) for pair in _pairs(measure, method)],
        }
        for measure in front["measures"]
        for method in methods(front)[:-1]
    ]


def rate_rows(front: Record) -> list[list[str]]:
    """Of every method and rate, the new loss and what was forgotten by measure; a rate that never came to its end has dashes."""
    measures, found = front["measures"], []
    ends = [{(end["method"], end["rate"]): end for end in points(front, one["name"])} for one in measures]
    for method in reversed(methods(front)):
        for rate in front["rates"][method]:
            own = [each.get((style.name(method), rate)) for each in ends]
            new = next((end["new"] for end in own if end), None)
            cells = [
                words.signed(end["forgotten"], 1 if one["unit"] == ACCURACY else 4) if end else words.NONE
                for end, one in zip(own, measures, strict=True)
            ]
            found.append([style.name(method), f"{rate:g}", words.shown(new, ".4f"), *cells])
    return found


def headings(front: Record) -> list[tuple[str, str]]:
    """Of the columns of `rate_rows`: name and unit."""
    units = {one["name"]: "points" if one["unit"] == ACCURACY else "nats" for one in front["measures"]}
    return [("method", ""), ("learning rate", ""), ("new loss", "nats"), *units.items()]


def sentences(front: Record) -> list[str]:
    """What is found at every share of the gain, about the subject; one for all shares where nobody can be read anywhere."""
    subject, reference = methods(front)[0], front["reference"]
    if subject == reference:
        return [told("sentences", "front_alone", reference=style.name(reference))]
    found = [_at_share(front, share, front["measures"]) for share in front["shares"]]
    return [text for text in found if text] or [_unread(front)]


def headline(front: Record) -> str:
    """What is found on the first measure at half the gain, or at the share nearest to it that can be read."""
    shares = sorted(front["shares"], key=lambda share: abs(share - 0.5))
    found = [_at_share(front, share, front["measures"][:1]) for share in shares]
    return next((text for text in found if text), sentences(front)[0])


def _at_share(front: Record, share: float, measures: list[Record]) -> str:
    """What is read of the subject at one share, by word, with sizes and spreads; nothing where nothing can be read."""
    subject = methods(front)[0]
    found: dict[str, list[str]] = {"better": [], "worse": [], "no evidence": []}
    read = []
    for measure in measures:
        for pair in _pairs(measure, subject):
            if pair["share"] == share and pair["effect"] is not None:
                read.append(pair)
                own = {**measure, "effect": pair["kind"]}
                sizes = {"size": words.difference(own, pair), "spread": words.spread(own, pair)}
                found[pair["word"]].append(
                    told("sentences", "front_detail", title=measure["title"], pair=pair, **sizes)
                )
    if not read:
        return ""
    seeds = [pair["n"] for pair in read]
    screening = (min(seeds), max(seeds)) if any(pair["screening"] for pair in read) else None
    names = {"subject": style.name(subject), "reference": style.name(front["reference"])}
    return words.begun(told("sentences", "front_share", **names, share=share, found=found, seeds=screening))


def _unread(front: Record) -> str:
    names = {"subject": style.name(methods(front)[0]), "reference": style.name(front["reference"])}
    return told("sentences", "front_unread", **names)


def _pairs(measure: Record, method: str) -> list[Record]:
    return [pair for pair in measure["pairs"] if pair["pair"][0] == method]


def _cell(measure: Record, pair: Record) -> tuple[str, str]:
    if pair["effect"] is None:
        return words.NONE, ""
    own = {**measure, "effect": pair["kind"]}
    return words.effect(own, pair["effect"]), words.spread(own, pair).removeprefix(words.NONE)

"""The figures of the page, part by part: a chart, its heading, and the words that explain it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from cegm.lab.report import (
    all_measures,
    curves,
    dots,
    drill_chart,
    forest,
    front_chart,
    layer_maps,
    levels,
    overhead_chart,
    style,
)
from cegm.lab.report.claims import Claim
from cegm.lab.report.judged import LOSS, Judged, judged
from cegm.lab.report.runs import Folder, Record
from cegm.lab.report.words import told

AXES = {
    "efficiency": ("links of the chain, supporting facts, or objects", "right answers"),
    "drift": ("rewrites", "similarity to the first text"),
    "noise": ("altered words", "right answers"),
    "complexity": ("depth of the sentence", "words guessed first"),
}
"""What is drawn by level: the titles of both axes of its charts."""


@dataclass(frozen=True)
class Figure:
    """A chart with the one line that explains it.

    Attributes:
        title: Short heading.
        meaning: One sentence without jargon.
        chart: The Vega-Lite specification.
        wide: Whether it takes the whole width of the page.
    """

    title: str
    meaning: str
    chart: Record
    wide: bool = False


def figure(name: str, chart: Any, height: int | None = 260, wide: bool = False, **values: Any) -> list[Figure]:
    """A figure as wide as its place on the page, or, with panels side by side, as wide as they are; none without a chart.

    Args:
        name: Of its words in `figures.txt.j2`.
        chart: The chart.
        height: Pixels; None for the chart's own.
        wide: Whether it takes the whole width of the page.
        values: What its words tell.
    """
    if chart is None:
        return []
    title, _, meaning = told("figures", name, **values).partition("\n")
    meaning = meaning.strip()
    sized = chart if isinstance(chart, alt.FacetChart) else chart.properties(width="container")
    spec = sized.properties(description=f"{title}. {meaning}").to_dict()
    spec.pop("$schema")  # the page names the grammar itself; an address in it would only look like a download
    spec.pop("config", None)
    if height is not None:
        spec["height"] = height
    return [Figure(title, meaning, spec, wide)]


def by_section(folder: Folder) -> dict[str, list[Figure]]:
    """All figures of the page but the paper's, by the section that they stand in."""
    if folder.is_ablation:
        return {
            "first": _differences(folder, LOSS),
            "seconds": _differences(folder, "equal_seconds"),
            "overhead": _overhead(folder),
        }
    seconds = dots.every_seed(folder, "equal_seconds", "bits per byte; lower is better")
    final = dots.every_seed(folder, LOSS, "bits per byte; lower is better")
    whole = figure("validation_loss", curves.learning_curves(folder), several=folder.is_comparison)
    return {
        "first": _fronts(folder.front) if folder.front else _forest(folder) + whole,
        "learning": (whole if folder.front else [])
        + figure("second_half", curves.learning_curves(folder, ending=True))
        + ([] if folder.is_comparison else figure("training_loss", curves.training_loss(folder))),
        "final": figure("every_seed", final, 200) + _differences(folder, LOSS),
        "seconds": figure("equal_seconds", seconds, 200) + _differences(folder, "equal_seconds"),
        "cost": figure("step_time", dots.step_time(folder), 150)
        + figure("memory", dots.cost(folder, "memory", "MiB", ",.0f"), 150)
        + figure("state", dots.cost(folder, "state", "bytes per parameter", ".2f"), 150),
        "overhead": _overhead(folder),
        "drill": figure("drill", drill_chart.chart(folder.drill), None, wide=True) if folder.drill else [],
        "retention": [] if folder.verdict else _recall(folder),
        "layers": _layers(folder),
        "rates": figure("matrix_rates", curves.learning_rates(folder, "lr_matrix"), 200)
        + figure("other_rates", curves.learning_rates(folder, "lr_adamw"), 200),
    }


def of_claim(claim: Claim, folder: Folder, verdict: Judged) -> list[Figure]:
    """Figures of one table or figure of the paper; a single one has the width for itself."""
    axis = claim.axes[0] if claim.axes else ""
    found: list[Figure] = []
    if not axis:
        found = _convergence(folder, verdict)
    elif axis == "retention":
        found = _recall(folder)
    elif axis == "steps":
        for carried in (True, False):
            entries = verdict.levels(axis, "free" if carried else "forced")
            found += figure("errors", levels.errors(entries, verdict.methods, carried), carried=carried)
    elif axis in AXES:
        found = _by_level(axis, verdict)
    return [replace(found[0], wide=True)] if len(found) == 1 else found


def _fronts(front: Record) -> list[Figure]:
    """A chart per measure, the one on the model's own text first."""
    return [
        drawn
        for measure in front["measures"]
        for drawn in figure(
            "front", front_chart.chart(front, measure), 300, title=measure["title"], own=measure["family"] == "primary"
        )
    ]


def _forest(folder: Folder) -> list[Figure]:
    verdict = judged(folder)
    if verdict is None:
        return []
    rows, left = all_measures.rows(verdict, folder.overhead)
    chart, height = all_measures.chart(rows, verdict.methods), all_measures.height(rows)
    return figure("every_measure", chart, height, subject=style.name(verdict.subject), left=left)


def _differences(folder: Folder, measure: str) -> list[Figure]:
    """The effect of every pair, of an ablation as wide as the page."""
    changes, rows = folder.is_ablation, forest.difference_points(folder, measure)
    chart = forest.pairs(rows, f"bits per byte, {'change minus base' if changes else 'first minus second'}")
    seconds = measure == "equal_seconds"
    return figure("differences", chart, forest.rows_height(rows), changes, changes=changes, seconds=seconds)


def _overhead(folder: Folder) -> list[Figure]:
    found = folder.overhead
    if found is None:
        return []
    reference = style.name(found["reference"])
    if folder.is_ablation:
        chart = overhead_chart.changes(found, [row["pair"] for row in forest.difference_points(folder, LOSS)])
        return figure("overhead", chart, forest.rows_height(found["points"]), True, axis="", reference=reference)
    return [
        drawn
        for axis, name in overhead_chart.AXES.items()
        for drawn in figure("overhead", overhead_chart.ratios(found, axis), 220, axis=name, reference=reference)
    ]


def _recall(folder: Folder) -> list[Figure]:
    """Recall by length, from the results of the runs."""
    return figure("recall", curves.retention(folder)) + figure("margin", curves.retention(folder, "score"))


def _layers(folder: Folder) -> list[Figure]:
    gradients, others = layer_maps.all_maps(folder)
    found = []
    for one in gradients:
        found += figure("gradient_map", layer_maps.panels(one), None, True, map=one, method=style.name(one.method))
    for other in others:
        found += figure("layer_map", layer_maps.heat_map(other), None, map=other, method=style.name(other.method))
    return found


def _by_level(axis: str, verdict: Judged) -> list[Figure]:
    """A chart per part of the axis that has levels."""
    unit, controls = verdict.measure(axis)["unit"], verdict.controls(axis)
    parts = list(dict.fromkeys(entry["subset"] for entry in verdict.levels(axis)))
    found: list[Figure] = []
    for part in parts:
        own = verdict.levels(axis, part)
        chart = levels.by_level(own, _short(controls, part), verdict.methods, *AXES[axis], unit)
        dashed = bool(controls) or any(entry["chance"] is not None for entry in own)
        found += figure("by_level", chart, axis=axis, part=part if len(parts) > 1 else None, dashed=dashed)
    return found


def _short(controls: list[Record], part: str) -> list[Record]:
    """Controls of a part, without its name; those that name no part belong to all."""
    named = [entry for entry in controls if part and entry["subset"].endswith(f" {part}")]
    return [{**entry, "subset": entry["subset"].removesuffix(f" {part}")} for entry in named or controls]


def _convergence(folder: Folder, verdict: Judged) -> list[Figure]:
    target, survival = verdict.verdict["target_loss"], verdict.verdict.get("survival")
    if target is None:
        return []
    shares = levels.convergence(survival, verdict.methods) if survival else None
    found = figure("reached", shares, target=target)
    return found + figure("steps_needed", dots.steps_to_target(folder), 260 if found else 220)

"""Writes `report.html`: one offline page with all charts, drawn from a folder alone.

The chart library (Vega, Vega-Lite and Vega-Embed, bundled by vl-convert, 0.9 MB) stands in the page once, compressed;
each chart is a JSON block that the page's few lines of script hand to it. A content security policy in the page forbids
loading anything from anywhere.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import vl_convert

from cegm.lab.report import (
    claims,
    curves,
    dots,
    drill_chart,
    endings,
    exhibits,
    first_screen,
    gradient_map,
    layers,
    overhead_chart,
    sentences,
    style,
    tables,
    tiles,
)
from cegm.lab.report.exhibit_figures import retention
from cegm.lab.report.figures import Figure, figure
from cegm.lab.report.folder import Folder, read
from cegm.lab.report.packing import compressed, packed
from cegm.lab.report.picture import VEGA_LITE
from cegm.pages import save, template

FILE_NAME = "report.html"


@dataclass(frozen=True)
class Table:
    """Numbers behind the figures of a section.

    Attributes:
        title: What stands on the fold.
        meaning: One sentence without jargon.
        columns: Name and unit of each.
        rows: Cells as text.
        names: How many cells of a row, from the left, are words.
        folded: Whether the table is folded away on screen.
    """

    title: str
    meaning: str
    columns: tuple[tuple[str, str], ...]
    rows: list[list[str]]
    names: int = 1
    folded: bool = True


@dataclass(frozen=True)
class Section:
    """A heading, its anchor, its figures and perhaps their numbers; `empty` says why there are no figures."""

    anchor: str
    title: str
    figures: list[Figure]
    empty: str
    table: Table | None = None


def write(comparison_dir: Path) -> Path:
    """Draws the page of a comparison or run folder into it.

    Args:
        comparison_dir: Comparison or run folder.

    Returns:
        Path of `report.html`.

    Raises:
        ValueError: If the folder is neither, or damaged.
    """
    return save(render(read(Path(comparison_dir))), Path(comparison_dir) / FILE_NAME)


def render(folder: Folder) -> str:
    """The page as text."""
    methods, rows = tables.settings(folder)
    shown, missing = exhibits.exhibits(folder)
    return template("cegm.lab.report", "page.html.j2").render(
        title=folder.path.resolve().name,
        folder=folder,
        methods=[style.name(method) for method in folder.methods],
        headline=sentences.headline(folder),
        sentences=sentences.sentences(folder),
        tiles=tiles.tiles(folder),
        first=first_screen.figures(folder),
        facts=tables.facts(folder),
        verdict_rows=tables.verdict_rows(folder.verdict) if folder.verdict else [],
        means=list(tables.MEANS.values()),
        method_rows=tables.method_rows(folder) if folder.verdict else [],
        sections=sections(folder),
        setting_methods=methods,
        settings=rows,
        pairing_rows=tables.pairing_rows(folder) if folder.is_comparison else [],
        run_rows=tables.run_rows(folder),
        exhibits=shown,
        missing=missing,
        columns=exhibits.columns(folder),
        source=claims.source(),
        checkpoints=tables.checkpoint_rows(folder.verdict) if folder.verdict else [],
        library=library(),
        packed=packed,
        config=style.CONFIG,
    )


def sections(folder: Folder) -> list[Section]:
    """All figures of the page in reading order."""
    unjudged = (
        "Not measured in this comparison." if folder.verdict else "Needs a verdict, which this folder does not hold."
    )
    if folder.is_ablation:
        return [
            Section(
                "seconds",
                "The base's training time for controls",
                endings.differences(folder, "equal_seconds"),
                unjudged,
            ),
            *_overhead(folder),
        ]
    drawn = [Section("learning", "How the runs learn", _learning(folder), "No run was evaluated often enough.")]
    if folder.is_comparison:
        drawn += [
            Section("final", "Where the runs end", endings.final(folder), unjudged),
            Section("seconds", "The same training time for every method", endings.equal_seconds(folder), unjudged),
        ]
    return [
        *drawn,
        Section("cost", "What it costs", _costs(folder), "No finished run has reported its cost."),
        *_overhead(folder),
        *_drill(folder),
        *_recall(folder),
        Section("layers", "Layers over time", _layers(folder), "The runs logged no numbers per layer."),
        Section("rates", "Learning rates", _rates(folder), "No finished run has logged a learning rate."),
    ]


def _learning(folder: Folder) -> list[Figure]:
    chart = curves.learning_curves(folder, ending=True)
    figures = figure("Second half, enlarged", "The curves of the first screen where they part.", chart)
    if not folder.is_comparison:
        figures += figure(
            "Training loss", "Loss of the batch that was learned from, step by step.", curves.training_loss(folder)
        )
    return figures


def _costs(folder: Folder) -> list[Figure]:
    return [
        *figure(
            "Time of one step",
            "Median over the steps of all seeds. Runs share the machine, so this is indicative.",
            dots.step_time(folder),
            150,
        ),
        *figure(
            "Peak memory", "Most memory the training process held.", dots.cost(folder, "memory", "MiB", ",.0f"), 150
        ),
        *figure(
            "Optimizer state",
            "Memory the optimizer keeps for every parameter of the model.",
            dots.cost(folder, "state", "bytes per parameter", ".2f"),
            150,
        ),
    ]


def _overhead(folder: Folder) -> list[Section]:
    found = folder.overhead
    if found is None:
        return []
    reference = style.name(found["reference"])
    meaning = (
        "The whole training step, with its 95 % interval, or a ring for each block of steps where they are too few for one. "
        f"Above the dashed line it takes longer than {reference}'s."
    )
    figures = [
        drawn
        for axis, name in overhead_chart.AXES.items()
        for drawn in figure(f"Time of a step by {name}", meaning, overhead_chart.ratios(found, axis), 220)
    ]
    how = f"{found['how']}, on {found['hardware']}. The reference is {reference}."
    numbers = Table(
        "Every shape in numbers", how[0].upper() + how[1:], overhead_chart.COLUMNS, overhead_chart.rows(found)
    )
    title = f"What it costs beside {reference}, by size, batch and length"
    if folder.is_ablation:
        order = [row["pair"] for row in dots.difference_points(folder, "bits_per_byte")]
        title, chart = "What every change costs", overhead_chart.changes(found, order)
        meaning = meaning.replace("Above", "Right of")
        figures = figure("Time of a step", meaning, chart, dots.rows_height(found["points"]), wide=True)
    return [Section("overhead", title, figures, "No two shapes could be measured.", numbers if numbers.rows else None)]


def _drill(folder: Folder) -> list[Section]:
    found = folder.drill
    if found is None:
        return []
    meaning = (
        "How far the training loss lies above that of an undisturbed copy: medians over seeds, in bands from the lowest to the highest. "
        "Below the dashed line a method has recovered; above it, the scale is logarithmic."
    )
    figures = figure("Excess after one bad step", meaning, drill_chart.chart(found), height=None, wide=True)
    how = f"{found['how'][0].upper()}{found['how'][1:]}. Medians of {drill_chart.seeds(found)} seeds, on {found['hardware']}."
    numbers = Table(
        "Every bad step in numbers", how, drill_chart.COLUMNS, drill_chart.rows(found), drill_chart.NAMES, folded=False
    )
    title = "How each method recovers from one bad step"
    return [Section("drill", title, figures, "No method could be drilled.", numbers if numbers.rows else None)]


def _recall(folder: Folder) -> list[Section]:
    """Recall of one run alone; a comparison shows it as the paper's table II."""
    figures = [] if folder.verdict else retention(folder)
    return [Section("retention", "Recall over long texts", figures, "")] if figures else []


def _layers(folder: Folder) -> list[Figure]:
    figures = []
    first, others = layers.all_maps(folder)
    for gradients in first:
        title = f"Figure 1. Gradient map: {style.name(gradients.method)}"
        meaning = gradients.meaning + gradients.extent.cut
        figures += figure(title, meaning, gradient_map.panels(gradients), height=None, wide=True)
    for one in others:
        title = f"{one.diagnostic.title}: {style.name(one.method)}"
        figures += figure(title, one.diagnostic.meaning + one.extent.cut, layers.heat_map(one), height=None)
    return figures


def _rates(folder: Folder) -> list[Figure]:
    return [
        *figure(
            "Weight matrices",
            "Size of the steps of the method itself.",
            curves.learning_rates(folder, "lr_matrix"),
            200,
        ),
        *figure(
            "Embeddings, head and vectors",
            "These are trained by AdamW in all methods.",
            curves.learning_rates(folder, "lr_adamw"),
            200,
        ),
    ]


@functools.cache  # bundling takes seconds
def library() -> str:
    """The chart library as text that the page's script unfolds."""
    return compressed(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE))

"""Figure 1, the gradient map: over how many directions each layer's gradient spreads, as it comes, mapped, and as the step."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import altair as alt

from cegm.lab.report import layer_tables
from cegm.lab.report.folder import Record
from cegm.lab.report.layer_tables import Extent, Table, spread
from cegm.lab.report.style import INK, Drawing

STAGES = {"gradient_rank": "raw", "mapped_rank": "mapped", "update_rank": "step"}
"""What a gradient is on its way to the weight, by key; one panel each, from left to right."""

CONTEXT_RANKS = ("context_rank", "gradient_context_rank")
"""Keys that only a method with a context has."""

TICKS = (1, 3, 10, 30, 100, 300, 1000, 3000)


@dataclass(frozen=True)
class GradientMap:
    """The map of one method.

    Attributes:
        method: The method.
        stages: Those of `STAGES` that it has, a panel each.
        contextual: Whether a context mapped anything.
        extent: Layers and steps, the same in all panels.
        cells: One per stage, layer and step; `place` is its column over all panels, 0 the leftmost.
        most: Largest value of all methods, where the shared colour scale ends.
    """

    method: str
    stages: tuple[str, ...]
    contextual: bool
    extent: Extent
    cells: list[Record]
    most: float

    @property
    def meaning(self) -> str:
        """What the picture shows, without jargon."""
        ways = ["as it comes", "as the step that the weights take"]
        if "mapped" in self.stages:
            ways.insert(1, "after momentum" + (" and the map of its context" if self.contextual else ""))
        told = ", ".join(ways[:-1]) + ", and " + ways[-1]
        missing = len(self.cells) < len(self.stages) * len(self.extent.layers) * len(self.extent.steps)
        return (
            f"Over how many independent directions the gradient of each layer spreads (its effective rank): {told}. "
            "Dark: the layer learns few directions at a time; bright: many. All methods share one colour scale."
            + (" White: no gradient." if missing else "")
        )


def gradient_maps(methods: list[str], tables: dict[tuple[str, str], Table]) -> list[GradientMap]:
    """A map for each method whose runs logged it.

    Args:
        methods: Methods in the order of the page.
        tables: All that the page draws, by key and method.
    """
    values = [fmean(found) for (key, _), table in tables.items() if key in STAGES for found in table.values()]
    return [_gradient_map(method, tables, max(values)) for method in methods if ("gradient_rank", method) in tables]


def _gradient_map(method: str, tables: dict[tuple[str, str], Table], most: float) -> GradientMap:
    own = {stage: tables[key, method] for key, stage in STAGES.items() if (key, method) in tables}
    extent = layer_tables.extent(list(own.values()), len(tables))
    places = _places(tuple(own), extent)
    cells = [
        {"stage": stage, **cell, "place": places[stage, cell["step"]]}
        for stage, table in own.items()
        for cell in extent.cells(table)
    ]
    contextual = any((key, method) in tables for key in CONTEXT_RANKS)
    return GradientMap(method, tuple(own), contextual, extent, cells, most)


def _places(stages: tuple[str, ...], extent: Extent) -> dict[tuple[str, int], int]:
    """Column over the panels of these stages by stage and step, with empty columns between two panels."""
    panel = len(extent.steps) + max(1, len(extent.steps) // 12)
    return {
        (stage, step): index * panel + column
        for index, stage in enumerate(stages)
        for column, step in enumerate(extent.steps)
    }


def panels(gradient_map: GradientMap) -> Drawing:
    """The chart of a map: its stages side by side, layers downwards, steps to the right."""
    places = _places(gradient_map.stages, gradient_map.extent)
    x = _column_axis(gradient_map, places)
    cells = (
        alt.Chart(alt.InlineData(values=gradient_map.cells), height=gradient_map.extent.height)
        .mark_rect()
        .encode(
            x=x,
            y=layer_axis(),
            color=_colour(gradient_map.most),
            tooltip=["stage:N", "layer:N", "step:O", alt.Tooltip("value:Q", title="directions", format=".3~g")],
        )
    )
    middle = gradient_map.extent.steps[len(gradient_map.extent.steps) // 2]
    titles = [{"place": places[stage, middle], "title": title} for stage, title in _titles(gradient_map).items()]
    words = (
        alt.Chart(alt.InlineData(values=titles))
        .mark_text(baseline="bottom", fontSize=12, fontWeight=600, color=INK)
        .encode(x=x, y=alt.value(-5), text="title:N")
    )
    return alt.layer(cells, words)


def _titles(gradient_map: GradientMap) -> dict[str, str]:
    mapped = "after momentum and map" if gradient_map.contextual else "after momentum"
    titles = {"raw": "raw gradient", "mapped": mapped, "step": "step of the weights"}
    return {stage: titles[stage] for stage in gradient_map.stages}


def _column_axis(gradient_map: GradientMap, places: dict[tuple[str, int], int]) -> alt.X:
    """Every panel with the same few steps; the names of the columns are known to the axis alone."""
    labels = {
        places[stage, step]: step for stage in gradient_map.stages for step in spread(gradient_map.extent.steps, 4)
    }
    return alt.X(
        "place:O",
        title="step",
        scale=alt.Scale(domain=list(range(max(places.values()) + 1))),
        axis=alt.Axis(
            values=list(labels),
            labelExpr=f"({labels})[datum.value]",
            labelAngle=0,
            tickCount=len(labels),  # else the style's count thins them
            ticks=False,
            domain=False,
        ),
    )


def _colour(most: float) -> alt.Color:
    legend = alt.Legend(
        orient="top",
        title="directions",
        titleOrient="left",
        titleFontWeight="normal",
        gradientLength=220,
        gradientThickness=9,
        values=[tick for tick in TICKS if tick <= most],
        format="d",
        offset=24,
    )
    return alt.Color(
        "value:Q", scale=alt.Scale(type="log", scheme="viridis", domain=[1, most], nice=False), legend=legend
    )


def layer_axis() -> alt.Y:
    """Layers from input to output downwards."""
    axis = alt.Axis(labelFontSize=10, labelOverlap=True, labelPadding=5, ticks=False, domain=False)
    return alt.Y("layer:N", title=None, sort=None, axis=axis)

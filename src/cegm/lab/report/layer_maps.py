"""Maps of layers over time: the gradient map (figure 1), and one heat map per diagnostic and method.

The gradient map tells over how many directions each layer's gradient spreads, as it comes, mapped, and as the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from cegm.lab.report import layer_tables, style
from cegm.lab.report.curves import thinned
from cegm.lab.report.layer_tables import Extent, Table
from cegm.lab.report.runs import Folder, Record

STAGES = {"gradient_rank": "raw", "mapped_rank": "mapped", "update_rank": "step"}
"""What a gradient is on its way to the weight, by key; one panel each, from left to right."""

CONTEXT_RANKS = ("context_rank", "gradient_context_rank")
"""Keys that only a method with a context has."""

DIAGNOSTICS = (*CONTEXT_RANKS, "cosine", "update_to_weight")
"""Per-layer numbers of `metrics.jsonl` that have a map each."""

TICKS = (1, 3, 10, 30, 100, 300, 1000, 3000)


@dataclass(frozen=True)
class LayerMap:
    """One heat map: its method, which diagnostic it shows, and its cells."""

    method: str
    key: str
    extent: Extent
    cells: list[Record]


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
    def missing(self) -> bool:
        """Whether a layer had no gradient at some step."""
        return len(self.cells) < len(self.stages) * len(self.extent.layers) * len(self.extent.steps)


def all_maps(folder: Folder) -> tuple[list[GradientMap], list[LayerMap]]:
    """Everything that the folder has numbers for: figure 1, then diagnostic by diagnostic; values are means over seeds."""
    tables = layer_tables.tables(folder, [*STAGES, *DIAGNOSTICS])
    maps = []
    for (key, method), table in tables.items():
        if key in DIAGNOSTICS:
            extent = layer_tables.extent([table], len(tables))
            maps.append(LayerMap(method, key, extent, extent.cells(table)))
    return gradient_maps(folder.methods, tables), maps


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


def panels(gradient_map: GradientMap) -> style.Drawing:
    """The chart of a map: its stages side by side, layers downwards, steps to the right."""
    extent, most = gradient_map.extent, gradient_map.most
    places = _places(gradient_map.stages, extent)
    labels = {places[stage, step]: step for stage in gradient_map.stages for step in thinned(extent.steps, 4)}
    x = _steps(
        "place:O",
        list(labels),
        scale=alt.Scale(domain=list(range(max(places.values()) + 1))),
        labelExpr=f"({labels})[datum.value]",  # the names of the columns are known to the axis alone
        tickCount=len(labels),  # else the style's count thins them
    )
    look = {"title": "directions", "titleOrient": "left", "titleFontWeight": "normal", "gradientLength": 220}
    ticks = [tick for tick in TICKS if tick <= most]
    scale = alt.Scale(type="log", scheme="viridis", domain=[1, most], nice=False)
    colour = _colour(scale, **look, values=ticks, format="d", offset=24)
    tooltip = ["stage:N", "layer:N", "step:O", alt.Tooltip("value:Q", title="directions", format=".3~g")]
    middle = extent.steps[len(extent.steps) // 2]
    mapped = "after momentum and map" if gradient_map.contextual else "after momentum"
    names = {"raw": "raw gradient", "mapped": mapped, "step": "step of the weights"}
    titles = [{"place": places[stage, middle], "title": names[stage]} for stage in gradient_map.stages]
    words = style.data(titles).mark_text(baseline="bottom", fontSize=12, fontWeight=600, color=style.INK)
    return alt.layer(
        _cells(gradient_map.cells, extent, x, colour, tooltip), words.encode(x=x, y=alt.value(-5), text="title:N")
    )


def heat_map(layer_map: LayerMap) -> alt.Chart:
    """The chart of one map: layers from input to output downwards, steps to the right."""
    colour = _colour(alt.Scale(scheme="viridis", zero=False), gradientLength=160, format=".3~r", tickCount=3, offset=4)
    tooltip = ["layer:N", "step:O", alt.Tooltip("value:Q", format=".4~g")]
    x = _steps("step:O", thinned(layer_map.extent.steps, 6))
    return _cells(layer_map.cells, layer_map.extent, x, colour, tooltip)


def _steps(field: str, values: list[int], scale: Any = alt.Undefined, **look: Any) -> alt.X:
    axis = alt.Axis(values=values, labelAngle=0, ticks=False, domain=False, **look)
    return alt.X(field, title="step", scale=scale, axis=axis)


def _colour(scale: alt.Scale, **look: Any) -> alt.Color:
    return alt.Color("value:Q", scale=scale, legend=alt.Legend(orient="top", gradientThickness=9, **look))


def _cells(cells: list[Record], extent: Extent, x: alt.X, colour: alt.Color, tooltip: list[Any]) -> alt.Chart:
    """A cell per layer and step, layers from input to output downwards."""
    axis = alt.Axis(labelFontSize=10, labelOverlap=True, labelPadding=5, ticks=False, domain=False)
    y = alt.Y("layer:N", title=None, sort=None, axis=axis)
    chart: alt.Chart = style.data(cells).mark_rect().encode(x=x, y=y, color=colour, tooltip=tooltip)
    return chart.properties(height=extent.height)

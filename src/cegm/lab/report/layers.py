"""Maps of layers over time: the gradient map (figure 1), and one heat map per diagnostic and method."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt

from cegm.lab.report import gradient_map, layer_tables
from cegm.lab.report.folder import Folder, Record
from cegm.lab.report.gradient_map import GradientMap
from cegm.lab.report.layer_tables import Extent, spread


@dataclass(frozen=True)
class Diagnostic:
    """One of the per-layer numbers of `metrics.jsonl`."""

    key: str
    title: str
    meaning: str


DIAGNOSTICS = (
    Diagnostic(
        "context_rank",
        "Effective rank of the context",
        "How many independent directions the inputs of a layer really use. Low means that its tokens look alike.",
    ),
    Diagnostic(
        "gradient_context_rank",
        "Effective rank of the output gradients",
        "How many independent directions a layer is asked to move its outputs in. Low means that its tokens ask for the same.",
    ),
    Diagnostic(
        "cosine",
        "Agreement of raw and mapped gradient",
        "1 means that context left the direction of the update as it was; lower means that it turned it.",
    ),
    Diagnostic(
        "update_to_weight",
        "Update against weight",
        "Size of one update over the weights it changes. Even colours mean that all layers learn at one pace.",
    ),
)


@dataclass(frozen=True)
class LayerMap:
    """One heat map: its method, what it shows, and its cells."""

    method: str
    diagnostic: Diagnostic
    extent: Extent
    cells: list[Record]


def all_maps(folder: Folder) -> tuple[list[GradientMap], list[LayerMap]]:
    """Everything that the folder has numbers for: figure 1, then diagnostic by diagnostic; values are means over seeds."""
    tables = layer_tables.tables(folder, [*gradient_map.STAGES, *(diagnostic.key for diagnostic in DIAGNOSTICS)])
    maps = []
    for diagnostic in DIAGNOSTICS:
        for method in folder.methods:
            if (diagnostic.key, method) in tables:
                table = tables[diagnostic.key, method]
                extent = layer_tables.extent([table], len(tables))
                maps.append(LayerMap(method, diagnostic, extent, extent.cells(table)))
    return gradient_map.gradient_maps(folder.methods, tables), maps


def heat_map(layer_map: LayerMap) -> alt.Chart:
    """The chart of one map: layers from input to output downwards, steps to the right."""
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=layer_map.cells), height=layer_map.extent.height)
        .mark_rect()
        .encode(
            x=alt.X(
                "step:O",
                title="step",
                axis=alt.Axis(values=spread(layer_map.extent.steps, 6), labelAngle=0, ticks=False, domain=False),
            ),
            y=gradient_map.layer_axis(),
            color=alt.Color(
                "value:Q",
                scale=alt.Scale(scheme="viridis", zero=False),
                legend=alt.Legend(
                    orient="top", gradientLength=160, gradientThickness=9, format=".3~r", tickCount=3, offset=4
                ),
            ),
            tooltip=["layer:N", "step:O", alt.Tooltip("value:Q", format=".4~g")],
        )
    )
    return chart

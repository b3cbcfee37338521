"""The map of layers over time: one heat map per diagnostic and method, thinned to keep any page small."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt

from cegm.report.curves import thinned
from cegm.report.folder import Folder, Record, Run, finite

MOST_CELLS = 5000
"""Cells of all maps of a page together; about 60 bytes each."""

MOST_LAYERS = 96
FEWEST_COLUMNS = 6
MOST_COLUMNS = 40


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
    """One heat map: its method, what it shows, its cells, and how many layers the model has in all."""

    method: str
    diagnostic: Diagnostic
    cells: list[Record]
    layers: int
    layers_in_all: int


def layer_maps(folder: Folder) -> list[LayerMap]:
    """All maps that the folder has numbers for, diagnostic by diagnostic; values are means over seeds.

    Layers and logged steps are picked evenly, never averaged, when there are more than fit.
    """
    wanted = [(diagnostic, method) for diagnostic in DIAGNOSTICS for method in folder.methods]
    tables = {pair: _table([r for r in folder.finished() if r.method == pair[1]], pair[0].key) for pair in wanted}
    tables = {pair: table for pair, table in tables.items() if table}
    budget = MOST_CELLS // max(1, len(tables))
    maps = []
    for (diagnostic, method), table in tables.items():
        names = list(dict.fromkeys(layer for layer, _ in table))
        kept = _spread(names, min(MOST_LAYERS, budget // FEWEST_COLUMNS))
        columns = min(MOST_COLUMNS, max(FEWEST_COLUMNS, budget // len(kept)))
        steps = _spread(sorted({step for _, step in table}), columns)
        short = _short_names(kept)
        cells = [
            {"layer": short[layer], "step": step, "value": float(f"{fmean(table[layer, step]):.4g}")}
            for layer in kept
            for step in steps
            if (layer, step) in table
        ]
        maps.append(LayerMap(method, diagnostic, cells, len(kept), len(names)))
    return maps


def heat_map(layer_map: LayerMap) -> alt.Chart:
    """The chart of one map: layers from input to output downwards, steps to the right."""
    height = max(120, min(14 * layer_map.layers, 560))
    steps = sorted({cell["step"] for cell in layer_map.cells})
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=layer_map.cells), height=height)
        .mark_rect()
        .encode(
            x=alt.X(
                "step:O", title="step", axis=alt.Axis(values=_spread(steps, 6), labelAngle=0, ticks=False, domain=False)
            ),
            y=alt.Y(
                "layer:N",
                title=None,
                sort=None,
                axis=alt.Axis(labelFontSize=10, labelOverlap=True, labelPadding=5, ticks=False, domain=False),
            ),
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


def _table(runs: list[Run], key: str) -> dict[tuple[str, int], list[float]]:
    """Values over seeds by layer and step, in the order of the model."""
    table: dict[tuple[str, int], list[float]] = defaultdict(list)
    for run in runs:
        for line in run.train:
            for layer, diagnostics in (line.get("layers") or {}).items():
                value = finite(diagnostics.get(key))
                if value is not None:
                    table[layer, int(line["step"])].append(value)
    return dict(table)


def _short_names(names: list[str]) -> dict[str, str]:
    """Names without the words that all of them share at either end."""
    parts = [name.split(".") for name in names]
    shortest = min(len(part) for part in parts)
    start = next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), 0)
    end = next((i for i in range(shortest - start) if len({part[-1 - i] for part in parts}) > 1), 0)
    return {name: ".".join(part[start : len(part) - end]) or name for name, part in zip(names, parts, strict=True)}


def _spread(values: list[Any], most: int) -> list[Any]:
    return [line["value"] for line in thinned([{"value": value} for value in values], most)]

"""The numbers per layer of `metrics.jsonl` as tables, and their thinning: all maps of a page together stay small."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from cegm.lab.report.curves import thinned
from cegm.lab.report.runs import Folder, Record, Run, finite

Table: TypeAlias = dict[tuple[str, int], list[float]]
"""Values over seeds by layer and step, in the order of the model."""

MOST_CELLS = 5000
"""Cells of all maps of a page together; 60 to 100 bytes each."""

MOST_LAYERS = 96
FEWEST_COLUMNS = 6
MOST_COLUMNS = 40


def tables(folder: Folder, keys: Iterable[str]) -> dict[tuple[str, str], Table]:
    """Values of all finished runs, by key and method; none where nothing was logged.

    Args:
        folder: The folder.
        keys: Keys of a layer's numbers.
    """
    runs: dict[str, list[Run]] = {method: [] for method in folder.methods}
    for run in folder.finished():
        runs[run.method].append(run)
    found = {(key, method): _table(own, key) for key in keys for method, own in runs.items()}
    return {pair: table for pair, table in found.items() if table}


def _table(runs: list[Run], key: str) -> Table:
    table: Table = defaultdict(list)
    for run in runs:
        for line in run.train:
            for layer, numbers in (line.get("layers") or {}).items():
                value = finite(numbers.get(key))
                if value is not None:
                    table[layer, int(line["step"])].append(value)
    return dict(table)


@dataclass(frozen=True)
class Extent:
    """Which layers and steps a map shows, picked evenly, never averaged, when there are more than fit.

    Attributes:
        layers: Short names of the layers by their names, in the order of the model.
        steps: Logged steps, ascending.
        layers_in_all: Layers that the model has.
    """

    layers: dict[str, str]
    steps: list[int]
    layers_in_all: int

    @property
    def height(self) -> int:
        """Of a chart with a row per layer, pixels."""
        return max(120, min(14 * len(self.layers), 560))

    def cells(self, table: Table) -> list[Record]:
        """Layer, step and mean over seeds of what is shown, row by row."""
        return [
            {"layer": short, "step": step, "value": float(f"{fmean(table[layer, step]):.4g}")}
            for layer, short in self.layers.items()
            for step in self.steps
            if (layer, step) in table
        ]


def extent(shown: list[Table], panels: int) -> Extent:
    """The extent that tables side by side share on a page of so many panels in all."""
    budget = MOST_CELLS // panels
    names = list(dict.fromkeys(layer for table in shown for layer, _ in table))
    kept = thinned(names, min(MOST_LAYERS, budget // FEWEST_COLUMNS))
    columns = min(MOST_COLUMNS, max(FEWEST_COLUMNS, budget // len(kept)))
    return Extent(
        _short_names(kept), thinned(sorted({step for table in shown for _, step in table}), columns), len(names)
    )


def _short_names(names: list[str]) -> dict[str, str]:
    """Names without the words that all of them share at either end."""
    parts = [name.split(".") for name in names]
    shortest = min(len(part) for part in parts)
    start = next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), 0)
    end = next((i for i in range(shortest - start) if len({part[-1 - i] for part in parts}) > 1), 0)
    return {name: ".".join(part[start : len(part) - end]) or name for name, part in zip(names, parts, strict=True)}

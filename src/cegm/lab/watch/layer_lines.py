"""Numbers of layers over time, read from the file when somebody asks: of few lines, whatever the length of the run."""

from __future__ import annotations

import math
import threading
import zlib
from array import array
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import msgspec

from cegm.lab.watch.follower import Follower, Line

Kept = TypeVar("Kept")
Layers = Mapping[str, Mapping[str, float | None]]

QUANTITIES = {
    "update_to_weight": "update over weight",
    "gradient_rank": "rank of the raw gradient",
    "mapped_rank": "rank after momentum and map",
    "update_rank": "rank of the step",
    "cosine": "cosine of raw and mapped",
    "home": "share of known directions kept in the step",
    "context_rank": "rank of the context",
    "gradient_context_rank": "rank of the gradient context",
    "gradient_norm": "norm of the raw gradient",
}
"""What a line says of a layer, and how it is called."""

MOST_COLUMNS = 160
"""Steps of a map; screens show no more."""


class Cells(NamedTuple):
    """A line's numbers: places of layers by name, and for each quantity a number per place, NaN where there is none."""

    step: int
    places: dict[str, int]
    values: dict[str, array[float]]

    def value(self, quantity: str, layer: str) -> float | None:
        """One number, to four digits; None where there is none."""
        if quantity not in self.values or layer not in self.places:
            return None
        number = self.values[quantity][self.places[layer]]
        return None if math.isnan(number) else float(f"{number:.4g}")


class _Layered(msgspec.Struct):
    step: int
    layers: dict[str, dict[str, float | None]]


class LayerLines:
    """What the lines of a file say of layers.

    Args:
        follower: Of the file.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int], Cells] = {}

    def last(self) -> Layers:
        """Numbers by quantity of every layer, of the last line that has any."""
        self._follower.look()
        with self._follower.lock:
            line = next((line for line in reversed(self._follower.lines) if line.has_layers), None)
        found = None if line is None else self._read(line)
        return {} if found is None else found.layers

    def table(self, quantity: str) -> dict[str, Any]:
        """`layers`, `steps`, and as `values` for each layer a number per step, None where there is none."""
        found = self._cells()
        layers = list(dict.fromkeys(name for cells in found for name in cells.places))
        values = [[cells.value(quantity, name) for cells in found] for name in layers]
        return {"layers": layers, "steps": [cells.step for cells in found], "values": values}

    def layer(self, name: str) -> dict[str, Any]:
        """`steps`, and as `values` by quantity the numbers of one layer."""
        found = self._cells()
        values = {quantity: [cells.value(quantity, name) for cells in found] for quantity in self.quantities()}
        return {"steps": [cells.step for cells in found], "values": values}

    def quantities(self) -> list[str]:
        """Those that some line has a number for."""
        found = self._cells()
        return [each for each in QUANTITIES if any(not _empty(cells.values.get(each)) for cells in found)]

    def _cells(self) -> list[Cells]:
        """Of evenly picked lines; those known from the time before are not read again."""
        self._follower.look()
        with self._follower.lock:
            lines = [line for line in self._follower.lines if line.has_layers]
        with self._lock:
            found = {}
            for line in picked(lines, MOST_COLUMNS):
                place = (line.start, line.check)
                if place in self._known:
                    found[place] = self._known[place]
                elif (read := self._read(line)) is not None:
                    found[place] = _cells(read)
            self._known = found
            return list(found.values())

    def _read(self, line: Line) -> _Layered | None:
        """A whole line; None where it is gone in the meantime."""
        with suppress(OSError), self._follower.path.open("rb") as file:
            file.seek(line.start)
            content = file.read(line.end - line.start)
            if zlib.crc32(content) == line.check:
                return msgspec.json.decode(content, type=_Layered)
        return None


def picked(lines: list[Kept], most: int) -> list[Kept]:
    """At most `most` of the lines and the last one: every one, every second, fourth, ..., so that of more lines they are the same."""
    stride = 1
    while len(lines) > most * stride:
        stride *= 2
    kept = lines[::stride]
    return kept if not lines or kept[-1] is lines[-1] else [*kept, lines[-1]]


def _cells(line: _Layered) -> Cells:
    names = dict.fromkeys(quantity for own in line.layers.values() for quantity in own if quantity in QUANTITIES)
    values = {quantity: array("f", [_number(own.get(quantity)) for own in line.layers.values()]) for quantity in names}
    return Cells(line.step, {name: place for place, name in enumerate(line.layers)}, values)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _empty(values: array[float] | None) -> bool:
    return values is None or all(map(math.isnan, values))

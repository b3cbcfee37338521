"""Numbers of layers over time, read from the file when somebody asks: of few lines, whatever the length of the run."""

from __future__ import annotations

import math
import threading
import zlib
from array import array
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple, TypeVar

import msgspec

from cegm.lab.watch.follower import Follower, Line, TrainLine

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
        found = self._read([line for line in reversed(self._lines()) if line.has_layers][:1])
        return found[0].layers if found else {}

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

    def _lines(self) -> list[Line]:
        self._follower.look()
        with self._follower.lock:
            return [line for line in self._follower.lines if isinstance(line.record, TrainLine)]

    def _cells(self) -> list[Cells]:
        """Of evenly picked lines; those known from the time before are not read again."""
        lines = picked([line for line in self._lines() if line.has_layers], MOST_COLUMNS)
        with self._lock:
            read = self._read([line for line in lines if (line.start, line.check) not in self._known])
            fresh = {each.step: _cells(each) for each in read}
            known = {}
            for line in lines:
                place, step = (line.start, line.check), line.record.step  # type: ignore[union-attr]
                cells = self._known.get(place) or fresh.get(step)
                if cells is not None:
                    known[place] = cells
            self._known = known
            return list(known.values())

    def _read(self, lines: list[Line]) -> list[_Layered]:
        """Whole lines; one that is gone in the meantime is left out."""
        found = []
        with suppress(OSError), self._follower.path.open("rb") as file:
            for line in lines:
                content = _content(file, line)
                if zlib.crc32(content) == line.check:
                    found.append(msgspec.json.decode(content, type=_Layered))
        return found


def picked(lines: list[Kept], most: int) -> list[Kept]:
    """At most `most` of the lines and the last one: every one, every second, fourth, ..., so that of more lines they are the same."""
    stride = 1
    while len(lines) > most * stride:
        stride *= 2
    kept = lines[::stride]
    return kept if not lines or kept[-1] is lines[-1] else [*kept, lines[-1]]


def _content(file: BinaryIO, line: Line) -> bytes:
    file.seek(line.start)
    return file.read(line.end - line.start)


def _cells(line: _Layered) -> Cells:
    names = dict.fromkeys(quantity for own in line.layers.values() for quantity in own if quantity in QUANTITIES)
    values = {quantity: array("f", [_number(own.get(quantity)) for own in line.layers.values()]) for quantity in names}
    return Cells(line.step, {name: place for place, name in enumerate(line.layers)}, values)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _empty(values: array[float] | None) -> bool:
    return values is None or all(map(math.isnan, values))

"""What a page hears of one run and its baseline: server-sent events whose id says how far both files have been read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from cegm.lab.records import Validation
from cegm.lab.watch.answers import standing
from cegm.lab.watch.follower import Line, Reader, TrainLine
from cegm.lab.watch.watched import BESIDE, Watched

LOOK, OVERVIEW, ALIVE = 0.1, 1.0, 10.0
"""Seconds between two looks at the files, two overviews, and two signs of life."""

MOST_LINES = 2000
"""Lines in an event."""

COLUMNS = (
    "step",
    "loss",
    "lr_matrix",
    "lr_adamw",
    "forward_backward_seconds",
    "optimizer_seconds",
    "gradient_norm",
    "clip_factor",
)
VALIDATED = ("step", "loss", "bits_per_byte")


class Overview:
    """How all runs stand, made anew once a second at most, however many pages ask."""

    def __init__(self, watched: Watched, price: float) -> None:
        self._watched, self._price = watched, price
        self._made, self._text = -OVERVIEW, ""

    def text(self) -> str:
        """As JSON."""
        watched = self._watched
        with watched.lock:
            if time.monotonic() - self._made >= OVERVIEW:
                watched.look()
                runs = [
                    standing(run, watched.pair_of(run), self._price)
                    for run in watched.runs.values()
                    if run.id != BESIDE
                ]
                facts = {
                    "kind": watched.kind,
                    "name": watched.name,
                    "verdict": watched.verdict(),
                    "first": watched.shown_first(),
                    "runs": msgspec.to_builtins(runs),
                }
                self._made, self._text = time.monotonic(), json.dumps(facts)
            return self._text


def stream(watched: Watched, overview: Overview, identity: str, marks: str) -> Iterator[bytes]:
    """Events without end: `overview` when it has changed, `lines` with new numbers, `cut` when lines are gone.

    Args:
        watched: The runs.
        overview: Of all of them.
        identity: Id of the run; another, or none, hears overviews alone.
        marks: The id of the last event that was received, empty for none.
    """
    run = watched.runs.get(identity)
    pair = None if run is None else watched.pair_of(run)
    before = [*marks.split(","), "", ""]
    readers = [each.lines.reader(before[place]) for place, each in enumerate((run, pair)) if each is not None]
    told, looked, lived = "", -OVERVIEW, time.monotonic()
    yield b"retry: 1000\n\n"
    while True:
        begun = time.monotonic()
        events = [event for place, reader in enumerate(readers) for event in _news(place, reader)]
        if begun - looked >= OVERVIEW or events:
            text, looked = overview.text(), begun
            if text != told:
                events.append(("overview", text))
                told = text
        identity_of_event = ",".join(reader.mark for reader in readers)
        for name, text in events:
            yield f"event: {name}\nid: {identity_of_event}\ndata: {text}\n\n".encode()
        if events or begun - lived >= ALIVE:
            yield b": alive\n\n"
            lived = begun
        time.sleep(max(0.0, LOOK - (time.monotonic() - begun)))


def _news(place: int, reader: Reader) -> Iterator[tuple[str, str]]:
    """Of a run, 0, or its baseline, 1."""
    kept, new = reader.news(MOST_LINES)
    if kept is not None:
        counts = {"train": len(_of(kept, TrainLine)), "validation": len(_of(kept, Validation))}
        yield "cut", json.dumps({"run": place, **counts})
    if new:
        found = {
            "train": _columns(_of(new, TrainLine), COLUMNS),
            "validation": _columns(_of(new, Validation), VALIDATED),
        }
        yield "lines", json.dumps({"run": place, **found})


def _of(lines: list[Line], kind: type[Any]) -> list[Any]:
    return [line.record for line in lines if isinstance(line.record, kind)]


def _columns(records: list[Any], names: tuple[str, ...]) -> dict[str, list[float | None]]:
    """Numbers to six digits by name."""
    return {name: [_rounded(getattr(record, name)) for record in records] for name in names}


def _rounded(value: float | None) -> float | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.6g}")

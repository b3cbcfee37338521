"""Measurements that grow point by point in one JSON file, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cegm.durable import write_whole
from cegm.lab.compare.progress import progress_bar
from cegm.lab.strict import json_object

Advance = Callable[[], None]
"""Called after each piece of work, for the progress bar."""


@dataclass(frozen=True)
class Point:
    """One thing to measure.

    Attributes:
        title: What the progress bar calls it.
        facts: What is written beside the measurement.
        measure: Measures it; takes what is called after each piece of work.
        pieces: How many pieces of work that are.
    """

    title: str
    facts: dict[str, Any]
    measure: Callable[[Advance], dict[str, Any]]
    pieces: int


def measure_points(path: Path, what: str, planned: Mapping[str, Point], head: dict[str, Any]) -> Path:
    """Measures every planned point, by id, that the file does not hold yet; it is written anew after each, behind `head`.

    Points that are not planned are dropped. ValueError where the file is damaged.
    """
    found = read_points(path, what)
    missing = [identity for identity in planned if identity not in found]
    if not missing:
        return path
    with progress_bar() as bar:
        task = bar.add_task(what, total=sum(planned[each].pieces for each in missing))
        for identity in missing:
            point = planned[identity]
            bar.update(task, description=f"{what}: {point.title}")
            try:
                measured = point.measure(partial(bar.advance, task))
            except (ValueError, RuntimeError) as error:  # no such width, not enough memory
                measured = {"error": " ".join(str(error).split())[:200]}
            found[identity] = {"id": identity, **point.facts, **measured}
            points = [found[each] for each in planned if each in found]
            write_whole(path, json.dumps({**head, "points": points}, allow_nan=False))
    return path


def read_points(path: Path, what: str) -> dict[str, dict[str, Any]]:
    """Points of a file by id; those that could not be measured are left out, and so tried again. ValueError where it is damaged."""
    if not path.exists():
        return {}
    try:
        points = msgspec.convert(json_object(path)["points"], list[dict[str, Any]])
        return {point["id"]: point for point in points if "error" not in point}
    except (ValueError, KeyError):
        raise ValueError(f"{path} is damaged; delete it to measure the {what} again") from None

"""Measurements that grow point by point in one JSON file, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cegm.durable import write_whole
from cegm.lab.compare.progress import progress_bar

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
    """Measures every point that the file's list `points` does not hold yet; it is written anew after each.

    Args:
        path: The file; it need not exist.
        what: What is measured, in a word.
        planned: Points by id, in the order in which they are written; points of others in the file are dropped.
        head: What the file holds besides `points`.
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
    """Points by id, none without a file; those that could not be measured are left out, and so tried again."""
    if not path.exists():
        return {}
    try:
        points = json.loads(path.read_text(encoding="utf-8"))["points"]
        return {point["id"]: point for point in points if "error" not in point}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; delete it to measure the {what} again") from None

"""Measurements that grow point by point in one JSON file, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_points(path: Path, what: str) -> dict[str, dict[str, Any]]:
    """Points by id; those that could not be measured are left out, and so tried again.

    Args:
        path: File whose object has a list `points`; it need not exist.
        what: What was measured, for the error message.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.exists():
        return {}
    try:
        points = json.loads(path.read_text(encoding="utf-8"))["points"]
        return {point["id"]: point for point in points if "error" not in point}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; delete it to measure the {what} again") from None


def attempt(measure: Callable[[Callable[[], None]], dict[str, Any]], advance: Callable[[], None]) -> dict[str, Any]:
    """What `measure` finds, or under `error` why it could not: no such width, not enough memory."""
    try:
        return measure(advance)
    except (ValueError, RuntimeError) as error:
        return {"error": " ".join(str(error).split())[:200]}

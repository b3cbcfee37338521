"""The audit log of a run: append-only events, each with the hash of the line before, so that a changed line shows."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


class AuditLog:
    """Appends events to one file; continues an existing chain.

    Args:
        path: `RUN/audit.jsonl`.

    Raises:
        ValueError: The chain that is already there is broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._previous = verify(path) if path.exists() else ""

    def record(self, event: str, **facts: Any) -> None:
        """Appends one event; on disk when this returns."""
        time = datetime.now(timezone.utc).isoformat()
        line = json.dumps({"time": time, "event": event, **facts, "previous": self._previous})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._previous = _hash(line)


def verify(path: Path) -> str:
    """Checks that no line of an audit log was changed, removed or put in.

    A cut at the end cannot be seen from the file alone; keep the returned hash elsewhere to see that too.

    Returns:
        The hash of the last line, "" for an empty file.

    Raises:
        ValueError: The first line that does not fit, by number.
    """
    previous = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            claimed = json.loads(line)["previous"]
        except (json.JSONDecodeError, KeyError, TypeError):
            claimed = None
        if claimed != previous:
            raise ValueError(f"{path} line {number} does not continue the line before; the log was changed")
        previous = _hash(line)
    return previous


def _hash(line: str) -> str:
    return hashlib.sha256(line.encode("utf-8")).hexdigest()

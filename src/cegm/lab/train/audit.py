"""The audit log of a run: append-only events, each with its own hash and that of the line before, so that a change shows."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


class AuditLog:
    """Appends events to one file; continues an existing chain.

    The start of a line that was never finished, because the process died while it wrote, is cut off: it was never
    recorded. An event of its own says so.

    Args:
        path: `RUN/audit.jsonl`.

    Raises:
        ValueError: The chain that is already there is broken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        unfinished = _unfinished(path) if path.exists() else 0
        if unfinished:
            os.truncate(path, path.stat().st_size - unfinished)
        try:
            self._previous = read(path)[1] if path.exists() else ""
        except ValueError as error:
            raise ValueError(
                f"{error}; give another output_dir, in which a checkpoint of this run can be resumed"
            ) from None
        if unfinished:
            self.record("unfinished_line", bytes=unfinished)

    def record(self, event: str, **facts: Any) -> None:
        """Appends one event; on disk when this returns."""
        time = datetime.now(timezone.utc).isoformat()
        line = _sealed({"time": time, "event": event, **facts, "previous": self._previous})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._previous = _hash(line)


def read(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Events of an audit log of which no line was changed, removed or put in, and the hash of the last one.

    A cut at the end cannot be seen from the file alone; keep the hash elsewhere to see that too. ValueError names the first line
    that does not fit, or a last line without an end.
    """
    events, previous = [], ""
    for number, line in enumerate(_lines(path), start=1):
        if not _continues(line, previous):
            raise ValueError(f"{path} line {number} does not continue the line before; the log was changed")
        events.append(json.loads(line))
        previous = _hash(line)
    if _unfinished(path):
        raise ValueError(f"{path} ends in the middle of a line; the process died while it wrote, or the log was cut")
    return events, previous


def is_unsealed(path: Path) -> bool:
    """Whether a log is of the time before its lines carried a hash of their own and that of `config.yaml`."""
    try:
        events = [json.loads(line) for line in _lines(path)]
        return bool(events) and not any({"sha256", "config"} & event.keys() for event in events)
    except (ValueError, AttributeError, RecursionError):
        return False


def _lines(path: Path) -> list[str]:
    """Finished lines; what is not UTF-8 becomes text that no hash fits."""
    return path.read_bytes().decode("utf-8", "replace").split("\n")[:-1]


def _sealed(event: dict[str, Any]) -> str:
    """The line of an event; it ends with the hash of what comes before, so that the last line of a log is guarded, too."""
    return json.dumps({**event, "sha256": _hash(json.dumps(event))})


def _continues(line: str, previous: str) -> bool:
    """Whether a line is as it was written, behind a line with this hash."""
    try:
        event = json.loads(line)
        del event["sha256"]
        return bool(event["previous"] == previous and _sealed(event) == line)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _unfinished(path: Path) -> int:
    """Bytes behind the last line end."""
    content = path.read_bytes()
    return len(content) - (content.rfind(b"\n") + 1)


def _hash(line: str) -> str:
    return hashlib.sha256(line.encode("utf-8")).hexdigest()

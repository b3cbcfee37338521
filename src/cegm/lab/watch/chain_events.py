"""The audit log of a run or a pilot while it is written: its events, and whether they are those that were written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from cegm.lab.train import audit


class ChainEvents:
    """The events of one file, read again when it has changed.

    Attributes:
        events: Those that can be read, in order.
        standing: Whether their chain is whole, in a sentence; empty without a log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = (0, 0)
        self.events: list[dict[str, Any]] = []
        self.standing = ""

    def look(self) -> None:
        """Reads the file if it has changed; one that cannot be read for the moment stays as it was."""
        with suppress(OSError):
            state = os.stat(self._path)
            seen = (state.st_size, state.st_mtime_ns)
            if seen != self._seen:
                self.events, self.standing = _read(self._path)
                self._seen = seen


def _read(path: Path) -> tuple[list[dict[str, Any]], str]:
    try:
        events, end = audit.read(path)
        return events, f"The chain is whole and ends in {end[:16]}."
    except ValueError as error:
        standing = f"The chain is not whole: {str(error).removeprefix(f'{path} ')}."
    events = []
    with suppress(msgspec.DecodeError):  # up to where it cannot be read
        for line in path.read_bytes().splitlines():
            events.append(msgspec.json.decode(line, type=dict[str, Any]))
    return events, standing

"""`requests.jsonl`: a line is in the file before the last byte of its answer is sent; a full disk delays lines and stops no answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from cegm.lab.records import Request, line

MOST_PENDING = 8 << 20
"""Bytes of lines that wait in memory for room on the disk; what comes on top is lost, and counted."""

OPEN_REQUESTS = 1024
"""Requests that a router answers at a time. So many numbers are left out after a restart, for answers that had begun."""


class LineLog:
    """Appends lines to a file; cuts off the start of a line that a killed router left.

    Args:
        path: Of the file, which only its owner may read.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, _opened(path)
        self.lost = 0
        self.error = ""
        self._pending = b""

    @property
    def waiting(self) -> int:
        """Lines that are not in the file yet."""
        return self._pending.count(b"\n")

    def append(self, record: msgspec.Struct) -> None:
        """Writes a line, after those that wait; never raises for the disk."""
        self.flush()
        added = (line(record) + "\n").encode()
        if len(self._pending) + len(added) > MOST_PENDING:
            self.lost += 1
        else:
            self._pending += added
        self.flush()

    def flush(self) -> None:
        """Tries to write what waits; a line of which the disk took a part goes on where it stopped."""
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._file, self._pending) :]
            self.error = ""
        except OSError as error:
            self.error = error.strerror or type(error).__name__

    def rewrite(self, change: Callable[[Path], object]) -> None:
        """Lets something put another file in the place of this one, unless lines wait for room on the disk."""
        if not self._pending:
            os.close(self._file)
            try:
                change(self._path)
            finally:
                self._file = _opened(self._path)

    def close(self) -> None:
        """Ends it; what still waits is lost."""
        self.flush()
        self.lost += self.waiting
        self._pending = b""
        os.close(self._file)


def read(path: Path) -> Iterator[Request]:
    """The records of a log that may be missing or being written: an unfinished last line is left out; ValueError for any other that is none."""
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(Request)
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            if not content.endswith(b"\n"):
                return
            try:
                yield decoder.decode(content)
            except msgspec.MsgspecError as error:
                raise ValueError(f"{path} line {number} is not as it was written ({error}); restore it") from None


def _opened(path: Path) -> int:
    if path.exists():
        _cut(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _cut(path: Path) -> None:
    """Cuts off what stands behind the last line end."""
    with path.open("rb+") as file:
        size = position = file.seek(0, os.SEEK_END)
        while position:
            step = min(position, 1 << 16)
            position = file.seek(position - step)
            end = file.read(step).rfind(b"\n")
            if end >= 0:
                size = position + end + 1
                break
            file.seek(position)
            size = position
        file.truncate(size)


def next_number(records: Iterable[Request]) -> int:
    """The first number that no request had that was ever answered."""
    return max((record.number for record in records), default=-OPEN_REQUESTS) + OPEN_REQUESTS + 1

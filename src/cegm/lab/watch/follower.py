"""`metrics.jsonl` while it is written: each line is read once, half a line is waited for, and what a resumption cut off is forgotten."""

from __future__ import annotations

import os
import threading
import time
import zlib
from bisect import bisect_left
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from cegm.lab.records import Final, Train, Validation


class TrainLine(Train, tag_field="kind", tag="train", kw_only=True):
    """A `train` line whose layers are left unread: with many of them they are all but a hundredth of it."""

    layers: msgspec.Raw | UnsetType = UNSET  # type: ignore[assignment]


Record = TrainLine | Validation | Final
DECODER: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class Line(NamedTuple):
    """A line of the file.

    Attributes:
        start: Byte at which it begins.
        end: Byte behind its line feed.
        check: CRC-32 of its bytes, by which it is known again.
        record: What it says; None where it cannot be read.
        has_layers: Whether it says something of layers, which `record` leaves out.
    """

    start: int
    end: int
    check: int
    record: Record | None
    has_layers: bool

    @property
    def mark(self) -> str:
        """Place and check, from which a reader can go on who comes back."""
        return f"{self.end}-{self.check:08x}"


class Follower:
    """The lines of one file; safe to be asked by many threads.

    Attributes:
        path: The file, which need not be there yet.
        lines: Whole lines that are in it, in order.
        cuts: How many lines were kept each time that some were found gone.
        changed: When the file was last seen to change, by the clock of `time.monotonic`.
        modified: When it was changed by its own clock, nanoseconds; 0 without a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Line] = []
        self.cuts: list[int] = []
        self.changed = time.monotonic()
        self.modified = 0
        self.lock = threading.RLock()
        self._seen: tuple[int, ...] = ()

    def look(self) -> None:
        """Reads what is new; a file that cannot be read for the moment, as on a share that is away, stays as it was seen."""
        with self.lock:
            try:
                # Opened anew each time: that is when a network file system asks whether its copy is still right.
                with self.path.open("rb") as file:
                    state = os.fstat(file.fileno())
                    seen = (state.st_ino, state.st_size, state.st_mtime_ns)
                    if seen == self._seen:
                        return
                    self._keep(self._standing(file))
                    self._read(file)
                    age = 0.0 if self._seen else max(0.0, time.time() - state.st_mtime)
                    self.changed, self.modified, self._seen = time.monotonic() - age, state.st_mtime_ns, seen
            except FileNotFoundError:
                self._keep(0)
                self._seen = ()
            except OSError:
                return

    def reader(self, mark: str = "") -> Reader:
        """One who reads along, from behind the line with this mark if that is still there, else from the beginning."""
        with self.lock:
            self.look()
            end = mark.partition("-")[0]
            place = bisect_left(self.lines, int(end), key=lambda line: line.end) if end.isdecimal() else -1
            found = 0 <= place < len(self.lines) and self.lines[place].mark == mark
            return Reader(self, place + 1 if found else 0, not found)

    def _standing(self, file: BinaryIO) -> int:
        """How many lines are there as they were: what is gone is gone from some line on."""

        def gone(line: Line) -> bool:
            file.seek(line.start)
            return zlib.crc32(file.read(line.end - line.start)) != line.check

        if not self.lines or not gone(self.lines[-1]):
            return len(self.lines)
        return bisect_left(self.lines, True, key=gone)

    def _keep(self, count: int) -> None:
        if count < len(self.lines):
            del self.lines[count:]
            self.cuts.append(count)

    def _read(self, file: BinaryIO) -> None:
        start = self.lines[-1].end if self.lines else 0
        file.seek(start)
        for text in file:
            if not text.endswith(b"\n"):
                return
            record, has_layers = _record(text)
            self.lines.append(Line(start, start + len(text), zlib.crc32(text), record, has_layers))
            start += len(text)


def _record(text: bytes) -> tuple[Record | None, bool]:
    try:
        record = DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, False
    if isinstance(record, TrainLine) and record.layers is not UNSET:
        record.layers = UNSET
        return record, True
    return record, False


class Reader:
    """How far somebody has read a file.

    Args:
        follower: Of the file.
        count: Lines that are read already.
        afresh: Whether what was read before, if anything, is to be forgotten.
    """

    def __init__(self, follower: Follower, count: int, afresh: bool) -> None:
        self._follower, self._count, self._cuts = follower, count, len(follower.cuts)
        self._afresh = afresh
        self.mark = follower.lines[count - 1].mark if count else ""

    def news(self, most: int) -> tuple[list[Line] | None, list[Line]]:
        """The lines that are left of those read before where some are gone, else None; then up to `most` new ones."""
        with self._follower.lock:
            self._follower.look()
            lines = self._follower.lines
            kept = min([self._count, *self._follower.cuts[self._cuts :]])
            left = lines[:kept] if self._afresh or kept < self._count else None
            new = lines[kept : kept + most]
            self._count, self._cuts, self._afresh = kept + len(new), len(self._follower.cuts), False
            self.mark = lines[self._count - 1].mark if self._count else ""
            return left, new

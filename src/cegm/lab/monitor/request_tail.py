"""`requests.jsonl` while it grows: each finished line once, with the byte at which it begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from cegm.lab.records import Request


class Line(NamedTuple):
    """A line of the log."""

    place: int
    request: Request
    content: bytes


class RequestTail:
    """Reads on from where it stopped.

    Args:
        path: Of the log, which need not be there yet.
        place: Byte to begin at.
    """

    def __init__(self, path: Path, place: int = 0) -> None:
        self._path, self._place = path, place
        self._decoder = msgspec.json.Decoder(Request)

    def read(self) -> Iterator[Line]:
        """New lines, as far as they are finished.

        Raises:
            ValueError: A line is no request, or the log has become shorter.
        """
        if not self._path.exists():
            return
        if self._path.stat().st_size < self._place:
            raise ValueError(f"{self._path} has become shorter; restore it, or fix another reference with --renew")
        with self._path.open("rb") as file:
            file.seek(self._place)
            for content in file:
                if not content.endswith(b"\n"):
                    return
                try:
                    request = self._decoder.decode(content)
                except msgspec.MsgspecError as error:
                    place = f"{self._path} at byte {self._place}"
                    raise ValueError(f"{place} is not as it was written ({error}); restore it") from None
                yield Line(self._place, request, content)
                self._place += len(content)

"""Words on their way out: what a command prints can be read on any terminal, and a reader who has left stops nobody's work."""

from __future__ import annotations

import codecs
import errno
import io
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

SPELT = "cegm.spelt"
"""Name of the error handler below."""

PLAIN = {
    **dict.fromkeys("\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FIGURE DASH}\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}", "-"),
    **dict.fromkeys("\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{PRIME}", "'"),
    **dict.fromkeys("\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE PRIME}", '"'),
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{MIDDLE DOT}": ".",
    "\N{BULLET}": "*",
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{LEFTWARDS ARROW}": "<-",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{ALMOST EQUAL TO}": "~",
    "\N{MICRO SIGN}": "u",
    "\N{REPLACEMENT CHARACTER}": "?",
}
"""How a sign is written where the terminal has none for it."""

BOXES, BLOCKS = range(0x2500, 0x2580), range(0x2580, 0x25A0)
"""Code points of the lines and bars that tables and progress are drawn with."""

NO_TEXT = range(0xDC80, 0xDD00)
"""What Python puts for the bytes of a file's name that are no text."""


def spelt(error: UnicodeError) -> tuple[str, int]:
    """Error handler of an encoder: signs that the encoding lacks in ASCII; letters, which may be of a file's name, as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelt, error.object[error.start : error.end])), error.end


def printable(text: str) -> str:
    """Without control characters, so that what stands in a file cannot steer the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def _spelt(sign: str) -> str:
    if sign in PLAIN:
        return PLAIN[sign]
    if ord(sign) in BLOCKS:
        return "#"
    if ord(sign) in BOXES:
        name = unicodedata.name(sign)
        return "+" if " AND " in name else "|" if "VERTICAL" in name or "UP" in name or "DOWN" in name else "-"
    if ord(sign) in NO_TEXT:
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return " " if unicodedata.category(sign) == "Zs" else sign.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(SPELT, spelt)


@contextmanager
def readable() -> Iterator[None]:
    """Until the end of the block, nothing that is printed raises because of the terminal or of who reads."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_readable(stream) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # none, its disk is full, or somebody has closed it
                stream.flush()
        sys.stdout, sys.stderr = before


def _readable(stream: Any) -> Any:
    """A stream like this one, which spells what its encoding lacks; one that is nobody's file is changed itself."""
    if not isinstance(stream, io.TextIOWrapper):  # none at all, or that of a notebook
        return stream
    stream.flush()
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if type(raw) is not io.FileIO:
        stream.reconfigure(errors=SPELT)
        return stream
    binary = io.BufferedWriter(_Outlet(raw.fileno(), "wb", closefd=False))
    like: TextIO = io.TextIOWrapper(
        binary,
        encoding=stream.encoding,
        errors=SPELT,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return like


class _Outlet(io.FileIO):
    """A file of the process that takes everything and says nothing once its pipe or terminal is gone."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gone = {errno.EPIPE, errno.EIO} if self.isatty() else {errno.EPIPE}

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in self._gone:
                raise
            return memoryview(data).nbytes

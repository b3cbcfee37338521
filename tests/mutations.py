"""What disks, editors and enemies do to files, drawn from a seed, and what a reader may answer to it."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest

SECONDS = 10.0
"""Of processor time; a reader that takes longer hangs. The slowest takes a tenth."""

PIECES = [
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\xc2\x85", b"\r",
    b"NaN", b"-Infinity", b"1e999", b"-1", b"0x1F", b"1_000", b"010", b"1:30", b"9" * 400, b"9" * 5000, b"9007199254740993", b"-0.0",
    b"null", b"true", b"[]", b"{}", b'""', b"'", b'"', b",", b": ", b"\n", b"\n- ", b"#", b"%", b"---\n", b"...", b"? ", b"| ", b"> ",
    b"&a [*a, *a]", b"*a", b"<<: *a", b"!!int ''", b"!!timestamp x", b"!!binary x", b"!!python/object/apply:os.getcwd []", b"2020-99-99",
    b"[" * 3000, b"{" * 3000, b'{"a":' * 3000, b"<script>alert(1)</script>", "é\u202e\U0001f9ea".encode(), b"A" * 10_000, b"../../etc/passwd",
]  # fmt: skip

WRONG: list[Any] = [
    None, True, -1, 0, 10**400, 2**53 + 1, 1e308, float("nan"), float("-inf"), 0.5, "", "x", "\ud800", "\x00", "<b>&\"'", "9" * 50,
    [], [[[]]], [None], {}, {"a": 1}, {"": {"": None}},
]  # fmt: skip
"""Values of every type, none of them what a reader hopes for everywhere."""


class HangingError(AssertionError):
    """A reader did not come back in time."""


def counts(few: int, many: int) -> Any:
    """Runs a test with an ordinary number of inputs, and under `-m long` with the large one."""
    long = pytest.param(many, marks=[pytest.mark.long, pytest.mark.timeout(3600)])
    return pytest.mark.parametrize("count", [few, long])


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content after one to three changes: cut, flipped, spliced, repeated, swapped, or with something put in."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = draw.choice(_CHANGES)(content, draw)
    return content


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randint(0, len(content))]


def _flip(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return b"\x80"
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def _part(content: bytes, draw: random.Random) -> tuple[int, int]:
    start = draw.randint(0, len(content))
    return start, min(len(content), start + draw.choice((1, 3, 20, 200, 2000)))


def _drop(content: bytes, draw: random.Random) -> bytes:
    start, stop = _part(content, draw)
    return content[:start] + content[stop:]


def _splice(content: bytes, draw: random.Random) -> bytes:
    (start, stop), at = _part(content, draw), draw.randint(0, len(content))
    return content[:at] + content[start:stop] + content[at:]


def _put(content: bytes, draw: random.Random) -> bytes:
    at = draw.randint(0, len(content))
    return content[:at] + draw.choice(PIECES) + content[at + draw.choice((0, 0, 1, 8)) :]


def _lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.split(b"\n")
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(3)
    if kind == 0:
        lines[one], lines[other] = lines[other], lines[one]
    elif kind == 1:
        lines.insert(other, lines[one])
    else:
        del lines[one]
    return b"\n".join(lines)


def _value(content: bytes, draw: random.Random) -> bytes:
    """What stands behind a colon becomes something else: a wrong type mostly."""
    places = [at for at, byte in enumerate(content) if byte == ord(":")]
    if not places:
        return _put(content, draw)
    start = draw.choice(places) + 1
    ends = [at for at in (content.find(mark, start) for mark in (b",", b"\n", b"}")) if at > 0]
    return content[:start] + b" " + draw.choice(PIECES) + content[min(ends, default=len(content)) :]


_CHANGES = (_cut, _flip, _flip, _drop, _splice, _put, _put, _lines, _value, _value)


def changed_value(value: Any, draw: random.Random) -> Any:
    """The same nested value with one place in it of another type, missing, or under another name."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.1:
        return draw.choice(WRONG)
    if isinstance(value, list):
        at = draw.randrange(len(value))
        return [changed_value(each, draw) if index == at else each for index, each in enumerate(value)]
    name = draw.choice(list(value))
    kind = draw.random()
    if kind < 0.15:
        return {key: each for key, each in value.items() if key != name}
    if kind < 0.25:
        return {("x" if key == name else key): each for key, each in value.items()}
    return {**value, name: changed_value(value[name], draw)}


def changed_line(content: bytes, draw: random.Random) -> bytes:
    """JSON lines with one value in one line changed, well-formed as before."""
    lines = content.split(b"\n")
    at = draw.choice([index for index, line in enumerate(lines) if line.strip()])
    lines[at] = json.dumps(changed_value(json.loads(lines[at]), draw)).encode()
    return b"\n".join(lines)


def outcome(read: Callable[[], Any], allowed: tuple[type[Exception], ...] = (ValueError, OSError)) -> Any:
    """What a reader returns, or the error by which it refuses.

    Raises:
        HangingError: It took too long.
        Exception: Any other that the reader raised, for which the user would see a traceback, or one without a word.
    """
    before = signal.signal(signal.SIGPROF, _hanging)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return read()
    except allowed as error:
        if not str(error).strip():
            raise
        return error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _hanging(number: int, frame: Any) -> None:
    raise HangingError(f"no answer within {SECONDS} s")

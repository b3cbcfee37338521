"""Files of a folder: each is met once, whatever it is called; what is passed over is told with its reason. Nothing heavy is imported."""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Mapping
from pathlib import Path

TEXT_SUFFIXES = (".txt", ".md")
ROW_SUFFIXES = (".jsonl", ".json")

HIDDEN = "hidden"
MET = "met before under another name"
BROKEN = "a link to nothing"
LOCKED = "not to be opened"
SPECIAL = "neither file nor folder"
OTHER = "neither .txt nor .md"
ROWS = "rows, which are read from a file given by itself"
EMPTY = "empty"

MOST_NAMES = 3
"""Of what was left out for one reason, as many names are told."""

LeftOut = dict[str, list[str]]
"""Names of what was left out, by reason."""

COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
"""First bytes of compressed files."""


def walk(folder: Path) -> tuple[list[Path], LeftOut]:
    """Files in a folder and below it, in the order of their paths, and what was passed over.

    Links are followed, to wherever they lead; a file or folder that was met before is not met again, so that no loop has
    to end and no text counts twice. What lies in a folder itself is met before what is linked into it.
    """
    files: list[Path] = []
    left_out: LeftOut = {}
    met: set[tuple[int, int]] = set()
    waiting, links = deque([folder]), deque[Path]()
    while waiting or links:
        path = (waiting or links).popleft()
        name = path.relative_to(folder).as_posix()
        try:
            status = path.stat()
            entries = sorted(path.iterdir()) if stat.S_ISDIR(status.st_mode) else []
        except OSError:
            left_out.setdefault(BROKEN if path.is_symlink() else LOCKED, []).append(name)
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in met:
            left_out.setdefault(MET, []).append(name)
            continue
        met.add(identity)
        if stat.S_ISREG(status.st_mode):
            files.append(path)
        elif not stat.S_ISDIR(status.st_mode):
            left_out.setdefault(SPECIAL, []).append(name)
        for entry in entries:
            if entry.name.startswith("."):
                left_out.setdefault(HIDDEN, []).append(entry.relative_to(folder).as_posix())
            else:
                (links if entry.is_symlink() else waiting).append(entry)
    return sorted(files), left_out


def text_files(folder: Path) -> tuple[list[Path], LeftOut]:
    """The .txt and .md files in a folder and below it, in the order of their paths, and what else lies there."""
    files, left_out = walk(folder)
    texts = []
    for path in files:
        if path.suffix.lower() in TEXT_SUFFIXES:
            texts.append(path)
        else:
            reason = ROWS if path.suffix.lower() in ROW_SUFFIXES else OTHER
            left_out.setdefault(reason, []).append(path.relative_to(folder).as_posix())
    return texts, left_out


def decoded(path: Path) -> str:
    """A file as text: UTF-8 with or without byte order mark, lines ending in a line feed; ValueError where it is something else."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_text(path, content, f"not UTF-8 text (byte {error.start})") from None
    if "\0" in text:
        raise _no_text(path, content, "not UTF-8 text (it holds zero bytes)")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _no_text(path: Path, content: bytes, what: str) -> ValueError:
    """The error for a file that is no text, which says more where its first bytes do."""
    for mark, name in COMPRESSED.items():
        if content.startswith(mark):
            return ValueError(f"{path} is {what} but compressed ({name}); unpack it first")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ValueError(f"{path} is {what} but UTF-16; convert it first")
    return ValueError(f"{path} is {what}; convert it first")


def told(left_out: Mapping[str, list[str]]) -> str:
    """What was left out in words: `2 hidden (.git, .cache), 1 empty (a.txt)`."""
    return ", ".join(f"{len(names)} {reason} ({_some(names)})" for reason, names in sorted(left_out.items()))


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")

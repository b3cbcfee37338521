"""What the readers of public sets share: documents that are read when they are needed, and text that is text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegm.tasks.axis import NotMeasured


@dataclass(frozen=True)
class Document:
    """One document of a public set.

    Attributes:
        name: Unique in its set, the same on every machine.
        read: Its text without markup; raises `NotMeasured` when the file is damaged.
    """

    name: str
    read: Callable[[], str]


def text_of(path: Path) -> str:
    """A file's text: UTF-8 with or without a mark in front, lines ending in a line feed.

    Raises:
        NotMeasured: The file cannot be read, is no UTF-8 or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotMeasured(f"{path} is no UTF-8 text (byte {error.start}); fetch the file again") from error
    except OSError as error:
        raise NotMeasured(f"{path}: {error}; fetch the file again") from error
    if not text.strip():
        raise NotMeasured(f"{path} is empty; fetch it again")
    return text


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder that match a pattern, sorted by name; hidden ones belong to no set.

    Raises:
        NotMeasured: None does.
    """
    paths = (path.relative_to(folder) for path in folder.glob(pattern))
    found = sorted(folder / path for path in paths if not any(part.startswith(".") for part in path.parts))
    if not found:
        raise NotMeasured(f"{folder} has no file {pattern}; fetch the set again")
    return found


def json_lines(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Objects of a file that has one per line.

    Args:
        path: The file.
        keys: What every object must have.

    Raises:
        NotMeasured: A line is no JSON object or lacks a key; names file and line.
    """
    return parsed_lines(text_of(path), path, keys)


def parsed_lines(text: str, where: str | Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Like `json_lines`, of a text that comes from `where`."""
    rows = []
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise NotMeasured(f"{where}, line {number}: no JSON ({error.msg}); fetch the file again") from error
        missing = [key for key in keys if not isinstance(row, dict) or key not in row]
        if missing:
            raise NotMeasured(f"{where}, line {number}: no {missing[0]!r}; fetch the file again")
        rows.append(row)
    return rows

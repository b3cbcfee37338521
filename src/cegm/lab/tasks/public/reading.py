"""How files of public sets are read, and what is said of those that are missing or damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cegm.lab.tasks.items import NotMeasured, Source


@dataclass(frozen=True)
class Document:
    """One document of a public set, under a name that is unique in it; its text without markup is read when it is needed."""

    name: str
    read: Callable[[], str]


def damaged(where: str | Path, line: int, what: object) -> NotMeasured:
    """The error for one bad line."""
    return NotMeasured(f"{where}, line {line}: {what}; fetch the file again")


def public(source: Source, *parts: str) -> Path:
    """A file or folder of a public set below the source."""
    path = Path(source, *parts)
    if not path.exists():
        raise NotMeasured(f"{path} does not exist; docs/axes.md tells which public sets an axis reads")
    return path


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder that match a pattern, at least one, sorted by name; hidden ones belong to no set."""
    paths = (path.relative_to(folder) for path in folder.glob(pattern))
    files = sorted(folder / path for path in paths if not any(part.startswith(".") for part in path.parts))
    if not files:
        raise NotMeasured(f"{folder} has no file {pattern}; fetch the set again")
    return files


def text_of(path: Path) -> str:
    """A file's text: UTF-8 with or without a mark in front, lines ending in a line feed."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotMeasured(f"{path} is no UTF-8 text (byte {error.start}); fetch the file again") from error
    except OSError as error:
        raise NotMeasured(f"{path}: {error}; fetch the file again") from error
    if not text.strip():
        raise NotMeasured(f"{path} is empty; fetch it again")
    return text


def lines_of(path: Path) -> list[str]:
    """Lines of a file that ends with a line feed; the first is line 1 to whoever reports a bad one."""
    lines = text_of(path).split("\n")  # not splitlines: some texts hold exotic line separators
    if lines.pop():
        raise damaged(path, len(lines) + 1, "the file ends within a line")
    return lines


def json_of(path: Path) -> Any:
    """What a JSON file holds."""
    try:
        return json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise damaged(path, error.lineno, f"no JSON ({error.msg})") from error


def json_rows(text: str, where: str | Path, *keys: str) -> list[dict[str, Any]]:
    """One object per line of a text that comes from `where`, each with these keys."""
    rows = []
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise damaged(where, number, f"no JSON ({error.msg})") from error
        missing = [key for key in keys if not isinstance(row, dict) or key not in row]
        if missing:
            raise damaged(where, number, f"no {missing[0]!r}")
        rows.append(row)
    return rows


def xml_of(path: Path) -> ElementTree.Element:
    """Root of an XML file."""
    try:
        return ElementTree.fromstring(text_of(path))
    except ElementTree.ParseError as error:
        raise damaged(path, error.position[0], f"no XML ({error})") from error

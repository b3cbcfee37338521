"""Rows of JSON: one per line, or one list that holds them all. Each has `text`, `messages`, or `prompt` and `completion`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, defstruct

from cegm.lab.files import LeftOut, decoded
from cegm.lab.strict import json_value

Kind = Literal["text", "messages", "completion"]

# A lone surrogate can be written in JSON but is no character, and every tokenizer stumbles over it.
Words = Annotated[str, Meta(pattern=r"\A(?=\s*\S)[^\ud800-\udfff]*\Z")]


class Message(Struct):
    """A turn of a conversation."""

    role: Words
    content: Words


Turns = Annotated[list[Message], Meta(min_length=1)]

SHAPES: tuple[tuple[Kind, type[Struct]], ...] = (
    ("text", defstruct("Text", [("text", Words)])),
    ("messages", defstruct("Messages", [("messages", Turns)])),
    ("completion", defstruct("Completion", [("prompt", Words), ("completion", Words)])),
    ("completion", defstruct("Completions", [("prompt", Turns), ("completion", Turns)])),
)
READ = {kind: shape.__struct_fields__ for kind, shape in SHAPES}
"""Fields that are read, by kind of row."""

MAY_BE_LISTS = ("messages", "prompt", "completion")

UNREAD = "fields that are not read"


def read(path: Path) -> tuple[Kind, list[Any], LeftOut]:
    """Kind and content of all rows of a file, and the fields of them that are not read.

    ValueError names what is no row, or of another kind than the first, by its number.
    """
    return documents(_numbered(path, decoded(path)), str(path))


def documents(numbered: Iterable[tuple[str, Any]], source: str) -> tuple[Kind, list[Any], LeftOut]:
    """Kind and content of all rows, each given after its place, and the fields of them that are not read; ValueError as `read`."""
    kinds: list[Kind] = []
    contents: list[Any] = []
    unread: dict[str, None] = {}
    for where, row in numbered:
        kind, content = _document(row, where)
        if kinds and kind != kinds[0]:
            raise ValueError(f"{where} holds {kind} but the first row holds {kinds[0]}; use one kind per file")
        kinds.append(kind)
        contents.append(content)
        unread.update(
            dict.fromkeys(name for name, value in row.items() if name not in READ[kind] and value is not None)
        )
    if not contents:
        raise ValueError(f"{source} is empty; give a file with rows")
    return kinds[0], contents, {UNREAD: list(unread)} if unread else {}


def _numbered(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Every row, and where it stands."""
    rows = _listed(path, text)
    if rows is None:
        lines = enumerate(text.split("\n"), start=1)
        rows = ((f"{path} row {number}", _line(line, f"{path} row {number}")) for number, line in lines if line.strip())
    yield from rows


def _listed(path: Path, text: str) -> Iterable[tuple[str, Any]] | None:
    """The rows of a file that is one JSON value; None where its first line is one by itself, and others follow.

    ValueError where it begins a list that is broken, or is an object that holds rows instead of being one.
    """
    first, _, rest = text.strip().partition("\n")
    if rest.strip() and _is_json(first):
        return None
    if first.startswith("["):
        return ((f"{path} row {number}", row) for number, row in enumerate(json_value(text, str(path)), start=1))
    if first.startswith("{") and _is_json(text):
        row = json_value(text, f"{path} row 1")
        within = [name for name, value in row.items() if isinstance(value, list) and name not in MAY_BE_LISTS]
        if within:
            raise ValueError(
                f"{path} holds one object with a list under {within[0]!r}; save that list, its rows as objects, by itself"
            )
        return [(f"{path} row 1", row)]
    return None


def _is_json(text: str) -> bool:
    try:
        json_value(text, "")
    except ValueError:
        return False
    return True


def _line(line: str, where: str) -> Any:
    try:
        return json_value(line, where)
    except ValueError as error:
        raise ValueError(f"{error}; give every row a line of its own, or one list that holds them all") from None


def _document(row: Any, where: str) -> tuple[Kind, Any]:
    """Kind and content of one row; `where` begins the error message."""
    for kind, shape in SHAPES:
        with suppress(msgspec.ValidationError):
            msgspec.convert(row, shape)
            return kind, row["text"] if kind == "text" else {name: row[name] for name in READ[kind]}
    raise ValueError(
        f"{where} has no text: it needs 'text', 'messages', or 'prompt' and 'completion' of the same type, none of them empty"
    )

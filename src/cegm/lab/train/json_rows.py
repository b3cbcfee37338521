"""Rows of JSON: one per line, or one list that holds them all. Each has `text`, `messages`, or `prompt` and `completion`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from cegm.lab.files import LeftOut, decoded
from cegm.lab.strict import json_value

Kind = Literal["text", "messages", "completion"]
READ = {"text": ("text",), "messages": ("messages",), "completion": ("prompt", "completion")}
"""Fields that are read, by kind of row."""

MAY_BE_LISTS = ("messages", "prompt", "completion")

UNREAD = "fields that are not read"


def read(path: Path) -> tuple[Kind, list[Any], LeftOut]:
    """Kind and content of all rows of a file, and the fields of them that are not read.

    Raises:
        ValueError: What is no row, or of another kind than the first, by its number.
    """
    return documents(_numbered(path, decoded(path)), str(path))


def documents(numbered: Iterable[tuple[str, Any]], source: str) -> tuple[Kind, list[Any], LeftOut]:
    """Kind and content of all rows, and the fields of them that are not read.

    Args:
        numbered: Where each row stands, which begins the error message, and the row.
        source: Where they all come from.

    Raises:
        ValueError: As `read`.
    """
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

    Raises:
        ValueError: It begins a list that is broken, or is an object that holds rows instead of being one.
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
    if isinstance(row, dict):
        text, messages = row.get("text"), row.get("messages")
        if _is_text(text):
            return "text", text
        if isinstance(messages, list) and messages and all(_is_message(message) for message in messages):
            return "messages", {"messages": messages}
        prompt, completion = row.get("prompt"), row.get("completion")
        if _is_turn(prompt) and _is_turn(completion) and isinstance(prompt, str) == isinstance(completion, str):
            return "completion", {"prompt": prompt, "completion": completion}
    raise ValueError(
        f"{where} has no text: it needs 'text', 'messages', or 'prompt' and 'completion' of the same type, none of them empty"
    )


def _is_text(value: Any) -> bool:
    # A lone surrogate can be written in JSON but is no character, and every tokenizer stumbles over it.
    return (
        isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and _is_text(value.get("role")) and _is_text(value.get("content"))


def _is_turn(value: Any) -> bool:
    return _is_text(value) or (
        isinstance(value, list) and bool(value) and all(_is_message(message) for message in value)
    )

"""Lines of public sets, and clear words about those that are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cegm.tasks.axis import NotMeasured


def lines(path: Path) -> list[str]:
    """Lines of a text file without their ends; the first is line 1 to whoever reports a bad one.

    Raises:
        NotMeasured: Not UTF-8, empty, or ended in the middle of a line (every set in use ends with a newline).
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise NotMeasured(f"{path} is not UTF-8 text (byte {error.start}); fetch it again") from error
    found = text.split("\n")  # not splitlines: some texts hold exotic line separators
    if found.pop():
        raise NotMeasured(f"{path} ends in the middle of line {len(found) + 1}; it is truncated, fetch it again")
    if not found:
        raise NotMeasured(f"{path} is empty; fetch it again")
    return found


def json_lines(path: Path, *fields: str) -> list[dict[str, Any]]:
    """One object per line, each with these fields.

    Raises:
        NotMeasured: A line is no object or lacks a field, or the file is damaged as in `lines`.
    """
    found = []
    for number, line in enumerate(lines(path), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise malformed(path, number, "is no JSON") from error
        lacking = [field for field in fields if not isinstance(row, dict) or field not in row]
        if lacking:
            raise malformed(path, number, f"has no `{lacking[0]}`")
        found.append(row)
    return found


def malformed(path: Path, line: int, what: str) -> NotMeasured:
    """The error for one bad line."""
    return NotMeasured(f"{path}, line {line}, {what}; fetch the file again")

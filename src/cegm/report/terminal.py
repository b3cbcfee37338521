"""The end of `cegm compare` in the terminal: one aligned table and the sentences that matter."""

from __future__ import annotations

import textwrap
from pathlib import Path

from cegm.report import sentences, tables
from cegm.report.folder import read

COLUMNS = ("method", "runs", "bits/byte", "recall", "bits/byte, equal s", "steps to target", "step", "memory", "state")
WIDTH = 110


def table(folder: Path) -> str:
    """Means of every measure by method, then the verdict.

    Args:
        folder: Comparison or run folder.

    Returns:
        Plain text, several lines, no trailing newline.

    Raises:
        ValueError: If the folder is neither, or damaged.
    """
    content = read(Path(folder))
    rows = [COLUMNS, *((row["method"], row["runs"], *row["cells"]) for row in tables.method_rows(content))]
    lines = [*_aligned(rows), "", sentences.headline(content)]
    for sentence in sentences.sentences(content):
        if sentence.kind in ("cost", "warning"):
            lines.append(textwrap.fill(sentence.text, WIDTH, subsequent_indent="  "))
    lines += [f"failed: {row['name']}: {row['error']}" for row in tables.run_rows(content) if row["status"] == "failed"]
    return "\n".join(printable(line) for line in lines)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def printable(text: str) -> str:
    """Without control characters, so that an error message cannot steer the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)

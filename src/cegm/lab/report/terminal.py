"""The end of `cegm compare` in the terminal: methods, axes, and the sentences that matter."""

from __future__ import annotations

import textwrap
from pathlib import Path

from cegm.columns import aligned
from cegm.lab.report import changes, drill_chart, sentences, style, tables, words
from cegm.lab.report.folder import Record, read
from cegm.lab.report.judged import Judged, judged
from cegm.pages import MINUS

COLUMNS = ("method", "runs", "bits/byte", "recall", "bits/byte, equal s", "steps to target", "step", "memory", "state")
WIDTH = 110
WIDEST = 130
"""Characters of a row of changes."""


def table(folder: Path) -> str:
    """Means of every measure by method, every axis, the drill if there was one, then the verdict.

    Args:
        folder: Comparison or run folder.

    Returns:
        Plain text, several lines, no trailing newline.

    Raises:
        ValueError: If the folder is neither, or damaged.
    """
    content = read(Path(folder))
    verdict = judged(content)
    rows = [COLUMNS, *((row["method"], row["runs"], *row["cells"]) for row in tables.method_rows(content))]
    lines = aligned(rows, {0})
    if verdict is not None and verdict.parts:
        lines = aligned(_fitting([changes.COLUMNS, *changes.rows(verdict, content.overhead)]), {0, 1, 4})
    lines += [*_axes(verdict), *_drill(content.drill), "", sentences.headline(content)]
    for sentence in sentences.sentences(content):
        if sentence.kind != "loss":  # the headline has told it
            lines.append(textwrap.fill(sentence.text, WIDTH, subsequent_indent="  "))
    lines += [f"failed: {row['name']}: {row['error']}" for row in tables.run_rows(content) if row["status"] == "failed"]
    return "\n".join(printable(line) for line in lines)


def _fitting(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Printable cells, names of changes cut to keep within the width."""
    cells = [(printable(name), _cut(printable(part), 24), *rest) for name, part, *rest in rows]
    others = sum(2 + max(map(len, column)) for column in list(zip(*cells, strict=True))[1:])
    return [(_cut(name, WIDEST - others), *rest) for name, *rest in cells]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _axes(verdict: Judged | None) -> list[str]:
    """A line per axis: every method, the subject minus the baseline, and the word."""
    if verdict is None or not verdict.axes or verdict.subject == verdict.baseline:
        return []
    order = list(reversed(verdict.methods))
    gap = f"{style.name(verdict.subject)} {MINUS} {style.name(verdict.baseline)}"
    entries = [entry for axis in verdict.axes if (entry := verdict.entry(axis, verdict.baseline))]
    spread = "95 % interval" if any(entry["interval"] for entry in entries) else "each seed"
    head = ("axis", "unit", *map(style.name, order), gap, spread, "verdict")
    rows = [(axis, *_axis(verdict, axis, order)) for axis in verdict.axes]
    return ["", *aligned([head, *rows], {0, 1, len(head) - 1})]


def _axis(verdict: Judged, axis: str, order: list[str]) -> tuple[str, ...]:
    measure, entry = verdict.measure(axis), verdict.entry(axis, verdict.baseline)
    means = [measure["methods"].get(method, {}).get("mean") for method in order]
    found = (words.NONE, words.NONE, "not measured")
    if entry is not None:
        found = (words.effect(measure, entry["effect"]), words.spread(measure, entry), entry["word"])
    return (words.unit(measure), *(words.axis_value(measure, mean) for mean in means), *found)


def _drill(found: Record | None) -> list[str]:
    """A line per bad step, clipping and method."""
    if found is None or not drill_chart.rows(found):
        return []
    head = ("bad step", "clipping", "method", "highest, nats", "steps to recover", "over seeds", "left, nats", "seeds")
    return ["", *aligned([head, *drill_chart.rows(found)], set(range(drill_chart.NAMES)))]


def printable(text: str) -> str:
    """Without control characters, so that an error message cannot steer the terminal."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)

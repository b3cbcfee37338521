"""The end of `cegm compare` in the terminal: methods, axes, and the sentences that matter."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path

from cegm import columns
from cegm.lab.report import changes, drill_chart, front_chart, sentences, tables, words
from cegm.lab.report.judged import Judged, judged
from cegm.lab.report.runs import read
from cegm.lab.report.words import TEMPLATES
from cegm.lab.streams import printable

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
    front = content.front
    axes = verdict.axes if verdict and verdict.subject != verdict.baseline and not front else []
    text = TEMPLATES.get_template("terminal.txt.j2").render(
        folder=content,
        methods=tables.method_rows(content),
        front=front,
        front_heads=[", ".join(filter(None, heading)) for heading in front_chart.headings(front)] if front else [],
        front_rates=front_chart.rate_rows(front) if front else [],
        front_shares=[f"{share:.0%}" for share in front["shares"]] if front else [],
        front_rows=[
            [row["title"], row["method"], *(size for size, _ in row["cells"])] for row in front_chart.rows(front)
        ]
        if front
        else [],
        changes=changes.rows(verdict, content.overhead) if verdict and verdict.parts else [],
        columns=words.names(verdict.columns) if verdict else [],
        intervals=any(entry["interval"] for entry in verdict.entries(axes, [verdict.baseline])) if verdict else False,
        axes=[_axis(verdict, axis) for axis in axes] if verdict else [],
        drill=drill_chart.rows(content.drill) if content.drill else [],
        headline=sentences.headline(content),
        sentences=sentences.sentences(content),
        aligned=_aligned,
        fitting=_fitting,
        filled=_filled,
    )
    return printable(text.removesuffix("\n"))


def _aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> str:
    return "\n".join(columns.aligned(rows, left))


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")


def _fitting(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Printable cells, names of changes cut to keep within the width."""
    cells = [(printable(name), _cut(printable(part), 24), *rest) for name, part, *rest in rows]
    others = sum(2 + max(map(len, column)) for column in list(zip(*cells, strict=True))[1:])
    return [(_cut(name, WIDEST - others), *rest) for name, *rest in cells]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _axis(verdict: Judged, axis: str) -> list[str]:
    """An axis: every method, the subject minus the baseline, and the word."""
    measure, entry = verdict.measure(axis), verdict.entry(axis, verdict.baseline)
    means = [words.axis_value(measure, measure["methods"].get(name, {}).get("mean")) for name in verdict.columns]
    found = [words.NONE, words.NONE, "not measured"]
    if entry is not None:
        found = [words.effect(measure, entry["effect"]), words.spread(measure, entry), entry["word"]]
    return [axis, words.unit(measure), *means, *found]

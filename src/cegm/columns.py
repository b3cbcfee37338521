"""Rows of text as aligned columns, for terminals."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], words: Collection[int]) -> list[str]:
    """One line per row, columns two spaces apart.

    Args:
        rows: Cells, as many in every row.
        words: Columns that are set to the left; the others hold numbers and are set to the right.

    Returns:
        Lines without trailing spaces; none for no rows.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cells(row, widths, words)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], words: Collection[int]) -> list[str]:
    pairs = enumerate(zip(row, widths, strict=True))
    return [cell.ljust(width) if column in words else cell.rjust(width) for column, (cell, width) in pairs]

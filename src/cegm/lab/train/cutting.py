"""Where a text may be cut: at white space where a writer left some, else between two characters as a reader sees them."""

from __future__ import annotations

import regex

NEAR = 256
"""Characters around the wanted place in which white space is looked for: longer than words, and a bound for scripts that have none."""

GRAPHEME = 64
"""Characters before the wanted place from which whole graphemes are counted; hardly one is longer."""


def cut_after(text: str, wanted: int) -> int:
    """The first white space from `wanted` on, or the end of the text where that comes first; else as `cut_before`."""
    stop = min(wanted + NEAR, len(text))
    space = next((place for place in range(wanted, stop) if text[place].isspace()), None)
    if space is not None:
        return space
    return len(text) if stop == len(text) else cut_before(text, wanted)


def cut_before(text: str, wanted: int) -> int:
    """The last white space before `wanted` that has something before it, else the next place between two graphemes."""
    for place in range(wanted - 1, max(wanted - NEAR, 0), -1):
        if text[place].isspace() and not text[place - 1].isspace():
            return place
    start = max(wanted - GRAPHEME, 0)
    ends = (start + found.end() for found in regex.finditer(r"\X", text[start : wanted + NEAR]))
    return next((end for end in ends if end >= wanted), wanted)

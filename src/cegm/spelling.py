"""What to tell a user who wrote a name that does not exist. No torch here: the command line needs it before anything heavy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CLOSE = 0.5
"""Likeness from which on a name is suggested, between 0 and 1."""


def nearest(word: object, choices: Iterable[object]) -> str:
    """`did you mean 'x'?` when something is close, otherwise the list of choices."""
    known = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=CLOSE)
    return f"did you mean {close[0]!r}?" if close else "use one of " + ", ".join(known)

"""Looks while traffic runs: evidence that may be looked at after every item, and be believed whenever it is enough.

On items where one of two models is right and the other wrong, a fair coin says which, if they are equally good. Whoever bets on the new
model again and again, from a capital of 1, then multiplies it by 20 or more at any time with a probability of at most 1 in 20 (Ville 1939;
arXiv 2210.01948). McNemar's test, looked at every 100 items, is wrong far more often.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ENOUGH = 20.0
"""Capital at which "better" is said, so that it is wrong in at most 5 % of all traffic that ever runs."""

STAKES = np.linspace(0.05, 0.95, 19)
"""Shares of the capital that are bet each time; a nineteenth of the capital follows each."""


def capital(first_right: Sequence[bool]) -> npt.NDArray[np.float64]:
    """Capital after each item on which only one of two models was right, (items,), for bets that it is the first."""
    won = np.asarray(first_right, dtype=bool)[:, None]
    growth = np.where(won, np.log1p(STAKES), np.log1p(-STAKES)).cumsum(axis=0)
    return np.asarray(np.exp(growth).mean(axis=1))


def first_enough(first_right: Sequence[bool]) -> int | None:
    """After how many such items there was enough evidence that the first model is better; None if it never was."""
    reached = np.flatnonzero(capital(first_right) >= ENOUGH)
    return int(reached[0]) + 1 if len(reached) else None

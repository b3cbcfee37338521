"""How many seeds a pilot takes: so many that an effect of twice the smallest worthwhile one ends in GO four times out of five."""

from __future__ import annotations

from scipy import stats

from cegm.lab.pilot.decision import CONFIDENCE, SURE

POWER = 0.85
"""Probability of GO that seeds are chosen for: more than the four in five that are promised, because the spread is a guess."""

TIMES = 2.0
"""How large an effect a pilot shall find, in smallest worthwhile ones."""

MOST = 200
"""Seeds that a pilot could take at all."""


def power(seeds: int, smallest_worthwhile: float, break_even: float, spread: float) -> float:
    """Probability of GO for an effect of `TIMES` the smallest worthwhile.

    GO asks two things of the same t statistic, a lower end above the smallest worthwhile effect and a probability of profit; the one that
    is harder to reach decides, up to the few pilots in which they change places.

    Args:
        seeds: At least 2.
        smallest_worthwhile: Effect below which nothing is to be changed.
        break_even: Effect that earns exactly what it costs.
        spread: Standard deviation over seeds of the paired difference, above 0.
    """
    truth, root = TIMES * smallest_worthwhile, seeds**0.5 / spread
    hurdles = ((smallest_worthwhile, 0.5 + CONFIDENCE / 2), (break_even, SURE))
    return min(
        float(stats.nct.sf(stats.t.ppf(level, seeds - 1), seeds - 1, (truth - bound) * root))
        for bound, level in hurdles
    )


def proposed_seeds(smallest_worthwhile: float, break_even: float, spread: float) -> int:
    """The fewest seeds with a power of `POWER`.

    Raises:
        ValueError: No number of seeds would do.
    """
    for seeds in range(2, MOST + 1):
        if power(seeds, smallest_worthwhile, break_even, spread) >= POWER:
            return seeds
    raise ValueError(
        f"smallest_worthwhile={smallest_worthwhile:g} cannot be told from nothing with {MOST} seeds (spread {spread:g}, break-even at "
        f"{break_even:g}); ask for a larger effect, or give seeds"
    )

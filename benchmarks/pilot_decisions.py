"""How often a pilot says GO where nothing is better, and where something is.

    python benchmarks/pilot_decisions.py --output benchmarks/results/pilot/decisions.json

A pilot is drawn item by item: every item has a difficulty, which all seeds and both methods share, every run a skill of its own, and every
answer its luck. `SPREAD` is the standard deviation over seeds of the paired difference that results, and what `cegm pilot fix` is told. A
method meets itself, or one whose true effect is twice the smallest worthwhile; each is judged with as many seeds as `fix` proposes. The 200
pilots of each kind are followed by ten times as many, which tell the rate behind them.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from cegm.lab.pilot.decision import decide
from cegm.lab.pilot.design import TIMES, power, proposed_seeds
from cegm.lab.pilot.money import Money

ITEMS = 400
SMALLEST_WORTHWHILE = 0.01
MONEY = Money(value=100.0, requests=120_000, once=40_000.0)
SKILL = 0.02
"""Standard deviation over runs of what a run gets right, in logits."""

HARD = 12.0
"""Standard deviation over items of their difficulty, in logits: most are right, or wrong, for every run, as after runs from one model."""

DIFFICULTY = HARD * stats.norm.ppf((np.arange(ITEMS) + 0.5) / ITEMS)
FEW, MANY = 200, 2_000
KNOWN = 40_000
"""Runs of each method that the spread is taken from: a spread 2 % too small costs a point and a half of power."""


def shares(lead: float, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """Share of right answers of one method on every seed, (seeds,); it finds all items easier by so much that `lead` is gained."""
    skill = rng.normal(easier(lead), SKILL, (seeds, 1))
    return (rng.random((seeds, ITEMS)) < special.expit(skill - DIFFICULTY)).mean(axis=1)


@cache
def easier(lead: float) -> float:
    """By how many logits all items have to be easier for a share of right answers that is larger by `lead`."""
    usual = special.expit(-DIFFICULTY).mean()
    return float(optimize.brentq(lambda skill: special.expit(skill - DIFFICULTY).mean() - usual - lead, -9.0, 9.0))


def pilots(effect: float, count: int, seeds: int, rng: np.random.Generator) -> dict[str, Any]:
    """How so many pilots end, with the 95 % interval of the rate of GO."""
    words = Counter(
        decide(shares(effect, seeds, rng) - shares(0.0, seeds, rng), MONEY, SMALLEST_WORTHWHILE).word
        for _ in range(count)
    )
    interval = stats.binomtest(words["GO"], count).proportion_ci()
    return {
        **{word: words[word] for word in ("GO", "HOLD", "STOP")},
        "pilots": count,
        "go": words["GO"] / count,
        "go_interval": [interval.low, interval.high],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", required=True, type=Path)
    output = parser.parse_args().output
    rng = np.random.default_rng(0)
    spread = float(np.std(shares(0.0, KNOWN, rng) - shares(0.0, KNOWN, rng)))
    seeds = proposed_seeds(SMALLEST_WORTHWHILE, MONEY.break_even_effect, spread)
    found = {
        "items": ITEMS,
        "smallest_worthwhile": SMALLEST_WORTHWHILE,
        "break_even": MONEY.break_even_effect,
        "spread": spread,
        "seeds": seeds,
        "power": power(seeds, SMALLEST_WORTHWHILE, MONEY.break_even_effect, spread),
    }
    for name, effect in (("itself", 0.0), ("twice_the_smallest_worthwhile", TIMES * SMALLEST_WORTHWHILE)):
        found[name] = {str(count): pilots(effect, count, seeds, rng) for count in (FEW, MANY)}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

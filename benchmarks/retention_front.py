"""Reads logs of retention.py: what every rule forgot at equal new loss, over what AdamW forgot.

    python benchmarks/retention_front.py benchmarks/results/retention/*.jsonl

A rule's front is new loss against what was forgotten over its rates, made monotone: learning more never counts as
forgetting more than a rate that learned more still. It is read at 25, 50, 75 and 90 % of the gain of AdamW's best rate
on the same seed; a dash where the rates of the rule, or AdamW's, do not reach to both sides of that.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from cegm.columns import aligned

REFERENCE = "adamw"
SHARES = (0.25, 0.5, 0.75, 0.9)
MEASURES = ("forgotten", "general", "divergence")

Line = dict[str, Any]


def front(lines: list[Line], measure: str) -> tuple[np.ndarray, np.ndarray]:
    """New losses, falling, and what was forgotten at each."""
    before = lines[0]["before"]
    rise = {"forgotten": 0.0, "general": before["general"], "divergence": 0.0}[measure]
    points = sorted(((line["new"], line[measure] - rise) for line in lines), reverse=True)
    best = [points[0]]
    for new, forgotten in points[1:]:
        best = [(n, min(f, forgotten)) for n, f in best]  # whoever reaches a lower loss has passed this one
        best.append((new, forgotten))
    return np.array([n for n, _ in best]), np.array([f for _, f in best])


def at(lines: list[Line], measure: str, new: float) -> float:
    """What was forgotten at a new loss; NaN outside of the rates that were tried."""
    losses, forgotten = front(lines, measure)
    return float("nan") if not losses[-1] <= new <= losses[0] else float(np.interp(-new, -losses, forgotten))


def ratios(lines: list[Line], measure: str) -> dict[str, list[float]]:
    """By rule, its mean ratio to AdamW over seeds at every share of AdamW's gain."""
    runs: dict[tuple[str, int], list[Line]] = defaultdict(list)
    for line in lines:
        runs[line["rule"], line["seed"]].append(line)
    table: dict[str, list[float]] = {}
    for rule in dict.fromkeys(line["rule"] for line in lines):
        seeds = [seed for name, seed in runs if name == rule and (REFERENCE, seed) in runs]
        table[rule] = []
        for share in SHARES:
            found = []
            for seed in seeds:
                reference = runs[REFERENCE, seed]
                before = reference[0]["before"]["new"]
                target = before - share * (before - min(line["new"] for line in reference))
                found.append(at(runs[rule, seed], measure, target) / at(reference, measure, target))
            table[rule].append(mean(found) if found else float("nan"))
    return table


def main() -> None:
    lines = [json.loads(line) for path in sys.argv[1:] for line in Path(path).read_text(encoding="utf-8").splitlines()]
    for domain in dict.fromkeys(line["domain"] for line in lines):
        mine = [line for line in lines if line["domain"] == domain]
        seeds = sorted({line["seed"] for line in mine})
        for measure in MEASURES:
            print(f"{domain}, {measure} over AdamW's at equal new loss, seeds {seeds}")
            rows = [["rule", *(f"{share:.0%}" for share in SHARES)]]
            for rule, values in ratios(mine, measure).items():
                rows.append([rule, *("-" if np.isnan(value) else f"{value:.2f}" for value in values)])
            print("\n".join(aligned(rows, {0})) + "\n")


if __name__ == "__main__":
    main()

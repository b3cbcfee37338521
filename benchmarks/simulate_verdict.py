"""How often the verdict speaks up when nothing differs, and how often when something does.

    python benchmarks/simulate_verdict.py --output benchmarks/results/statistics/verdict.json

Comparisons are drawn as `cegm compare` would record them, and `cegm.lab.compare.verdict.judge` judges each. Reported are

- *false alarms*: comparisons in which any pair on any primary measure is called better or worse although no method is
  better, for two kinds of nothing: methods that are equal in everything, and methods that are equal on average but each
  with a liking for stories of its own, which all seeds share because all seeds are asked the same;
- *power*: how often the better method is called better when its true lead is the smallest detectable difference that the
  verdict states beside that measure (the root of the mean square of what it states when nothing differs). It states it
  for one comparison without Holm, so that is what is judged: one pair of methods, one measure.

All axes but retention are stood in for by one score per seed; to Holm they are the same.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from scipy import stats

from cegm.lab.baselines import REFERENCE, SUBJECT
from cegm.lab.compare import item_statistics, seed_statistics, verdict
from cegm.lab.compare.verdict import Measure

METHODS = (SUBJECT, "muon", REFERENCE)
AXES = 13
"""Primary measures: the loss and twelve axes."""

SCORE = "score"
"""Column of the items that holds the score."""

SEED_SPREAD = 0.05
"""Standard deviation over seeds of what is common to all methods: it cancels in paired differences."""

SPREAD = 0.015
"""Standard deviation of what is not, on a loss (benchmarks/results/lengths: about .02 for differences)."""

ABILITY = 0.02
"""The same on the accuracy over items; their own luck comes on top."""

CLUSTERS, LEVELS, ITEMS = 8, (512, 1024), 8
"""Stories per axis, levels, items of a story at a level: as many as the embedded retention has at two lengths."""

LIKING = 0.2
"""Standard deviation over stories of the difference between two methods of unequal tastes."""

NO_CURVES = pd.DataFrame(columns=["id", "step", "tokens", "seconds", "loss", "bits_per_byte"])
RESAMPLES = 199
"""Bootstrap draws; few, for time. An interval has to exclude no difference, too: its ends are rough here, p is not."""


@dataclass(frozen=True)
class Design:
    """A comparison to draw.

    Attributes:
        seeds: Seeds per method.
        measures: The family of primary measures.
        methods: Methods, the subject first.
        liking: Standard deviation over stories of the difference between two methods.
        lead: What the subject is better by on the first measure than every other method.
    """

    seeds: int
    measures: tuple[Measure, ...]
    methods: tuple[str, ...] = METHODS
    liking: float = 0.0
    lead: float = 0.0

    def gain(self, measure: Measure, method: str) -> float:
        """What is added to the true value of a method."""
        sign = 1 if measure.better == "higher" else -1
        return sign * self.lead if method == SUBJECT and measure == self.measures[0] else 0.0

    def __str__(self) -> str:
        return f"{self.seeds} seeds, {len(self.measures)} measures x {len(self.methods) * (len(self.methods) - 1) // 2} pairs"


def family(axes: int) -> tuple[Measure, ...]:
    """The primary measures of the verdict, filled up to so many with stand-ins."""
    declared = [measure for measure in verdict.MEASURES if measure.family == "primary"][:axes]
    names = [f"axis_{number}" for number in range(len(declared) + 1, axes + 1)]
    return (*declared, *(Measure(name, name, "score", "higher", "difference", "primary", name) for name in names))


def results(design: Design, rng: np.random.Generator) -> pd.DataFrame:
    """A finished main run per method and seed."""
    per_run = [measure for measure in design.measures if measure.kind != "items"]
    common = rng.normal(2.0, SEED_SPREAD, (design.seeds, len(per_run)))
    rows = []
    for method in design.methods:
        gains = np.array([design.gain(measure, method) for measure in per_run])
        values = common + gains + rng.normal(0.0, SPREAD, common.shape)
        for seed in range(design.seeds):
            row = {measure.column: values[seed, place] for place, measure in enumerate(per_run)}
            rows.append({"id": f"{method}{seed}", "method": method, "seed": seed, "role": "main"} | row)
    fixed = {"status": "finished", "error": None, "attempts": 1, "final_loss": 1.0, "steps": 100}
    hashes = {"initial_hash": "same", "batch_hash": "same"}
    return pd.DataFrame(rows).assign(**fixed, **hashes)


def items(design: Design, rng: np.random.Generator) -> pd.DataFrame:
    """A row per scored item of every axis that has items; all seeds are asked the same."""
    shape = (design.seeds, CLUSTERS, len(LEVELS), ITEMS)
    seed, cluster, level, item = (place.ravel() for place in np.indices(shape))
    asked = {
        "seed": seed,
        "role": "main",
        "subset": "",
        "chance": 0.25,
        "item": [f"{own}-{number}" for own, number in zip(cluster, item, strict=True)],
        "cluster": cluster.astype(str),
        "level": np.asarray(LEVELS)[level],
    }
    frames = []
    for measure in (one for one in design.measures if one.kind == "items"):
        ease = rng.uniform(0.3, 0.7, CLUSTERS)
        for method in design.methods:
            taste = rng.normal(0.0, design.liking / np.sqrt(2), CLUSTERS)
            ability = design.gain(measure, method) + rng.normal(0.0, ABILITY, design.seeds)
            right = rng.random(len(seed)) < (ease + taste)[cluster] + ability[seed]
            frames.append(pd.DataFrame({**asked, "method": method, "axis": measure.name, SCORE: right.astype(int)}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def judged(design: Design, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The pairs of all primary measures of one comparison, measure by measure."""
    with (
        mock.patch.object(verdict, "MEASURES", design.measures),
        mock.patch.object(seed_statistics, "RESAMPLES", RESAMPLES),
        mock.patch.object(item_statistics, "ITEM_RESAMPLES", RESAMPLES),
    ):
        found = verdict.judge(results(design, rng), items(design, rng), NO_CURVES)
    return [pair for measure in found["measures"] for pair in measure["pairs"]]


def rate(hits: list[bool]) -> dict[str, Any]:
    """A share with its 95 % interval (Clopper and Pearson)."""
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(0.95)
    return {
        "experiments": len(hits),
        "rate": round(sum(hits) / len(hits), 4),
        "interval": [round(float(interval.low), 4), round(float(interval.high), 4)],
    }


def false_alarms(design: Design, experiments: int) -> dict[str, Any]:
    """How often any pair of any primary measure is called better or worse."""
    rng = np.random.default_rng(0)
    hits = [any(pair["word"] != "no evidence" for pair in judged(design, rng)) for _ in range(experiments)]
    return {"design": str(design), "liking": design.liking, **rate(hits)}


def power(seeds: int, measure: Measure, experiments: int) -> dict[str, Any]:
    """How often the subject is called better when its lead is the smallest detectable difference that the verdict states."""
    rng = np.random.default_rng(1)
    design = Design(seeds, (measure,), (SUBJECT, REFERENCE))
    stated = [judged(design, rng)[0]["smallest_detectable"] for _ in range(experiments // 4)]
    lead = float(np.sqrt(np.mean(np.square(stated))))
    hits = [judged(replace(design, lead=lead), rng)[0]["word"] == "better" for _ in range(experiments)]
    return {"design": str(design), "measure": measure.name, "lead": round(lead, 4), **rate(hits)}


def simulate(experiments: int) -> dict[str, Any]:
    """All that this script reports; comparisons of the large family take longest, so there are fewer of them."""
    loss, retention = family(2)
    nothing, something = [], []
    for seeds, axes, repeats in ((8, 2, experiments), (12, AXES, experiments // 3)):
        for liking in (0.0, LIKING):
            nothing.append(false_alarms(Design(seeds, family(axes), liking=liking), repeats))
    for measure in (loss, retention):
        for seeds in (8, 12):
            something.append(power(seeds, measure, experiments))
    return {"false_alarms": nothing, "power": something}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=250, help="comparisons per number")
    parser.add_argument("--output", type=Path, help=".json; by default it is only printed")
    arguments = parser.parse_args()
    found = simulate(arguments.experiments)
    text = json.dumps({**found, "processor_minutes": round(time.process_time() / 60, 1)}, indent=1)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How much of a gain on an axis is more than a lower loss explains: exploratory, no word of a verdict rests on it.

python benchmarks/beyond_loss.py benchmarks/results/axes --output benchmarks/results/axes/beyond_loss.csv

Over the runs of the second method, scores of an axis are a straight line of final validation loss (least squares). What the line says of the
first method's loss is explained by loss; the rest, a mean over seeds, is not. Its interval is a bootstrap over seeds, line and all.
A straight line through a dozen runs of one model is a rough judge: where scores jump when recall is learned, loss jumps, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cegm.lab.compare.measures import primary_subsets

RESAMPLES = 10_000


def scores(place: Path) -> pd.DataFrame:
    """One row per main run: method, seed, final loss in bits per byte, and the primary measure of every axis."""
    levels = pd.read_csv(place / "levels.csv", keep_default_na=False)
    levels = levels[levels["role"] == "main"]
    counted = [
        own[own["subset"].isin(primary_subsets(str(axis)) or own["subset"])] for axis, own in levels.groupby("axis")
    ]
    wide = pd.concat(counted).pivot_table(index=["method", "seed"], columns="axis", values="score")
    results = pd.read_csv(place / "results.csv")
    results = results[(results["role"] == "main") & (results["status"] == "finished")]
    return results[["method", "seed", "bits_per_byte"]].merge(wide.reset_index(), on=["method", "seed"])


def rest(loss: np.ndarray, score: np.ndarray, own_loss: np.ndarray, own_score: np.ndarray) -> np.ndarray:
    """Mean distance of (own_loss, own_score) above the line through (loss, score); all (..., seeds), the answer (...)."""
    middle = loss.mean(-1, keepdims=True)
    spread = ((loss - middle) ** 2).sum(-1)
    slope = ((loss - middle) * (score - score.mean(-1, keepdims=True))).sum(-1) / np.where(spread > 0, spread, np.inf)
    return own_score.mean(-1) - score.mean(-1) - slope * (own_loss.mean(-1) - loss.mean(-1))


def beyond(runs: pd.DataFrame, first: str, second: str, axis: str, rng: np.random.Generator) -> dict[str, Any]:
    """One row of the answer, over seeds that both methods have."""
    sides = [runs[runs["method"] == method].set_index("seed") for method in (second, first)]
    seeds = sides[0].index.intersection(sides[1].index)
    columns = [side.loc[seeds, name].to_numpy(float) for side in sides for name in ("bits_per_byte", axis)]
    draws = rng.integers(len(seeds), size=(RESAMPLES, len(seeds)))
    low, high = np.percentile(rest(*(column[draws] for column in columns)), [2.5, 97.5])
    unexplained = float(rest(*columns))
    difference = float(columns[3].mean() - columns[1].mean())
    return {
        "axis": axis,
        "pair": f"{first} - {second}",
        "seeds": len(seeds),
        "difference": difference,
        "explained_by_loss": difference - unexplained,
        "rest": unexplained,
        "low": low,
        "high": high,
        "correlation_with_loss": float(np.corrcoef(columns[0], columns[1])[0, 1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "place", type=Path, help="folder with results.csv and levels.csv, as benchmarks/keep.py writes them"
    )
    parser.add_argument(
        "--methods", default="cegm,muon", help="the one asked about, and the one the line is drawn through"
    )
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    runs, (first, second) = scores(arguments.place), arguments.methods.split(",")
    axes = [name for name in runs.columns if name not in ("method", "seed", "bits_per_byte")]
    table = pd.DataFrame([beyond(runs, first, second, axis, np.random.default_rng(0)) for axis in axes]).round(4)
    table.to_csv(arguments.output, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()

"""How much a method's loss depends on its learning rate: one picture over pretraining logs that differ in `--rate` alone.

    python benchmarks/sensitivity.py benchmarks/results/pretrain/tuning/rate-*.jsonl --output benchmarks/results/pretrain/tuning/rates.svg

The first table gives the mean final loss at each multiple of the rates in the settings, and the paired difference between
CEGM and each other method at that multiple, with its 95 % interval, or every seed where they are too few for one. The second
puts each method at its own best rate, half and twice of it: a claim that holds only at the best rates is none.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd

from cegm.lab.baselines import ordered
from cegm.lab.compare.seed_statistics import paired_difference
from cegm.lab.report import picture, style
from plot import shown

CLAIMANT = "cegm"


def read(paths: list[Path]) -> pd.DataFrame:
    """One row per finished run: method, seed, rate, final loss."""
    rows, common = [], {}
    for path in paths:
        first, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rest = {name: value for name, value in first.items() if name != "rate"}
        if common and rest != common:
            raise SystemExit(f"{path} differs from {paths[0]} in more than --rate; give logs of one job")
        common = rest
        for line in lines:
            if line["step"] == first["steps"]:
                rows.append(
                    {
                        "method": line["method"],
                        "seed": line["seed"],
                        "rate": first["rate"],
                        "lr": first["settings"][line["method"]]["lr"] * first["rate"],
                        "loss": line["validation"] if math.isfinite(line["validation"]) else math.nan,
                    }
                )
    if not rows:
        raise SystemExit("no finished run in these logs")
    return pd.DataFrame(rows)


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per method and rate."""
    rows = []
    for (rate, method), own in runs.groupby(["rate", "method"]):
        cells = {"rate": f"x {rate:g}", "method": style.name(str(method)), "final loss": f"{own['loss'].mean():.4f}"}
        diverged = int(own["loss"].isna().sum())
        if diverged:
            cells["final loss"] = f"{diverged} diverged"
        base = runs[(runs["rate"] == rate) & (runs["method"] == CLAIMANT)]
        both = own.merge(base, on="seed", suffixes=("", "_base"))
        if method != CLAIMANT and len(both) and both[["loss", "loss_base"]].notna().all(axis=None):
            found = paired_difference(both["loss_base"].tolist(), both["loss"].tolist())
            cells[f"{style.name(CLAIMANT)} - this"] = shown(found, "+.4f")
        rows.append(cells)
    return pd.DataFrame(rows).fillna("")


def around_best(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per method: its best rate, and the mean loss there, at half and at twice of it; a claim has to survive both."""
    rows = []
    for method, own in runs.groupby("method"):
        # a rate at which one seed diverged is no rate to recommend
        means = own.groupby("rate")["loss"].agg(lambda losses: losses.mean(skipna=False)).dropna()
        if means.empty:
            continue
        best = float(means.idxmin())
        at = {f"x {f:g}": means.iloc[np.isclose(means.index / best, f, rtol=0.01)] for f in (0.5, 1.0, 2.0)}
        rate = own[own["rate"] == best]["lr"].iloc[0]
        losses = {name: f"{found.iloc[0]:.4f}" if len(found) else "" for name, found in at.items()}
        rows.append((means.min(), {"method": style.name(str(method)), "best rate": f"{rate:.3g}", **losses}))
    return pd.DataFrame([row for _, row in sorted(rows, key=lambda each: each[0])])


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Final loss against the learning rate: a point per run, a line through the means."""
    names = ordered(runs["method"])
    data = runs.assign(method=runs["method"].map(style.name))
    x = alt.X("lr:Q", title="learning rate", scale=alt.Scale(type="log", nice=False, padding=12))
    y = alt.Y("loss:Q", title="final validation loss, nats per token", scale=alt.Scale(zero=False))
    points = alt.Chart(data).mark_point(size=22, filled=True, opacity=0.7)
    line = alt.Chart(data).mark_line().encode(x, y.aggregate("mean"), style.colour(names), style.dash(names))
    layers = line + points.encode(x, y, style.colour(names), style.shape(names))
    picture.save(layers.properties(width=460, height=300), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+", help="logs of pretrain.py, one per --rate")
    parser.add_argument("--output", type=Path, help="picture, .svg or .png; the table goes beside it as .csv")
    arguments = parser.parse_args()
    runs = read(arguments.logs)
    found = table(runs)
    print(found.to_string(index=False))
    print("\nAround the best rate of each:")
    print(around_best(runs).to_string(index=False))
    if arguments.output:
        picture.require_ending(arguments.output)
        draw(runs, arguments.output)
        found.to_csv(arguments.output.with_suffix(".csv"), index=False)


if __name__ == "__main__":
    main()

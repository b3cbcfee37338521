"""Over lengths of training: how many steps and seconds each method needs for the final loss of tuned AdamW, and CEGM for each one's own.

    python benchmarks/plot.py benchmarks/results/pretrain/[0-9]*.jsonl --output benchmarks/results/pretrain/novels.svg
    python benchmarks/plot.py benchmarks/results/lengths/*/results.csv --output benchmarks/results/lengths/novels.svg

Reads logs of `pretrain.py`, or results of `cegm compare` as `keep.py` keeps them; the latter without seconds, because their
runs took no turns. Each log holds runs of one length, every one to the end of its own schedule; a run is never stopped early to claim its
loss. Steps to a loss are read off between the lengths of a method, on logarithmic steps, per seed; a method whose longest
run misses the loss has missed it, and one whose shortest run is already below it needs at most that many. Seconds are
steps times the method's median second per step over the runs of that seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast

import altair as alt
import numpy as np
import pandas as pd

from cegm.lab.baselines import ordered
from cegm.lab.compare.seed_statistics import CLAIM_SEEDS, Difference, paired_difference, paired_ratio
from cegm.lab.report import picture, style

BASELINE, OURS = "adamw", "cegm"


def read(paths: list[Path]) -> pd.DataFrame:
    """One row per run: method, seed, budget (steps), final loss, seconds per step or NaN."""
    rows = [row for path in paths for row in (_comparison(path) if path.suffix == ".csv" else _log(path))]
    if not rows:
        raise SystemExit("no finished run in these logs")
    return pd.DataFrame(rows)


def _log(path: Path) -> list[dict[str, Any]]:
    first, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        {
            **{name: line[name] for name in ("method", "seed")},
            "budget": line["step"],
            "loss": line["validation"],
            "pace": line["seconds"] / line["step"],
        }
        for line in lines
        if line["step"] == first["steps"]
    ]


def _comparison(path: Path) -> list[dict[str, Any]]:
    table = pd.read_csv(path)
    table = table[(table["role"] == "main") & (table["status"] == "finished")]
    kept = table.rename(columns={"steps": "budget", "final_loss": "loss"})[["method", "seed", "budget", "loss"]]
    return cast(list[dict[str, Any]], kept.assign(pace=float("nan")).to_dict("records"))


def steps_to(runs: pd.DataFrame, target: float) -> tuple[float | None, bool]:
    """Steps that one method needs on one seed, None if it misses; and whether its shortest run is below already."""
    ordered = runs.sort_values("budget")
    budgets, losses = np.log(ordered["budget"].to_numpy()), ordered["loss"].to_numpy()
    below = np.flatnonzero(losses <= target)
    if not len(below):
        return None, False
    first = below[0]
    if first == 0:
        return float(np.exp(budgets[0])), losses[0] < target
    part = (losses[first - 1] - target) / (losses[first - 1] - losses[first])
    return float(np.exp(budgets[first - 1] + part * (budgets[first] - budgets[first - 1]))), False


def needed(runs: pd.DataFrame) -> pd.DataFrame:
    """Per method and seed: steps and seconds to AdamW's loss at the longest length."""
    longest = runs["budget"].max()
    rows = []
    for (method, seed), own in runs.groupby(["method", "seed"]):
        base = runs[(runs["method"] == BASELINE) & (runs["seed"] == seed) & (runs["budget"] == longest)]
        steps, bounded = steps_to(own, float(base["loss"].iloc[0]))
        seconds = None if steps is None else steps * own["pace"].median()
        rows.append({"method": method, "seed": seed, "steps": steps, "seconds": seconds, "bounded": bounded})
    return pd.DataFrame(rows)


def overtaking(runs: pd.DataFrame, method: str, column: str) -> str:
    """CEGM's steps or seconds to the final loss of `method` at the longest length, over its own: geometric mean with its interval.

    Seconds are steps times the second per step of the longest runs, in which both took turns.
    """
    longest = runs[runs["budget"] == runs["budget"].max()].set_index(["method", "seed"])
    ours, theirs, bounded = [], [], False
    for seed, own in runs[runs["method"] == OURS].groupby("seed"):
        base, mine = longest.loc[(method, seed)], longest.loc[(OURS, seed)]
        steps, below = steps_to(own, float(base["loss"]))
        ours.append(None if steps is None else steps * (mine["pace"] if column == "seconds" else 1.0))
        theirs.append(float(base["budget"] * (base["pace"] if column == "seconds" else 1.0)))
        bounded |= below
    missed = sum(each is None for each in ours)
    return f"{missed} missed" if missed else ratio([cast(float, each) for each in ours], theirs, bounded)


def ratio(first: list[float], second: list[float], bounded: bool) -> str:
    """Geometric mean of the quotients with its interval or its seeds; an upper bound where the first is one."""
    return f"{'≤ ' if bounded else ''}{shown(paired_ratio(first, second), '.2f')}"


def shown(found: Difference, number: str) -> str:
    """An effect with its interval in brackets, or where seeds are too few for one the effect on each in parentheses."""
    estimate, points = format(found.estimate, number), ", ".join(format(point, number) for point in found.points)
    if found.low is None or found.high is None:
        return f"{estimate} ({points})" if found.seeds > 1 else estimate
    return f"{estimate} [{found.low:{number}}, {found.high:{number}}]"


def against(table: pd.DataFrame, column: str, method: str, other: str) -> str:
    """Geometric mean ratio with its interval, or how many seeds missed; a bound of the divisor alone bounds nothing."""
    first, second = (table[table["method"] == name].set_index("seed")[column].sort_index() for name in (method, other))
    missed = int(first.isna().sum() + second.isna().sum())
    if missed:
        return f"{missed} missed"
    if method == other:
        return "1"
    bounded = table[table["bounded"]]["method"].tolist()
    if other in bounded:
        return "needs shorter runs"
    return ratio(first.tolist(), second.tolist(), method in bounded)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """The table: final loss at the longest length, and what each method needs for AdamW's, against AdamW's and as CEGM's part of it."""
    table, longest = needed(runs), runs[runs["budget"] == runs["budget"].max()]
    ours = longest[longest["method"] == OURS].sort_values("seed")["loss"].tolist()
    rows = []
    for name, own in longest.groupby("method"):
        method = str(name)
        cells: dict[str, Any] = {"method": style.name(method), "final loss": f"{own['loss'].mean():.4f}"}
        if ours:
            found = paired_difference(ours, own.sort_values("seed")["loss"].tolist())
            cells["CEGM's - it"] = "" if method == OURS else shown(found, "+.4f")
        for column in ("steps", "seconds") if runs["pace"].notna().all() else ("steps",):
            cells[f"{column} / AdamW's"] = against(table, column, method, BASELINE)
            if ours:
                cells[f"CEGM's {column} / its"] = "" if method == OURS else against(table, column, OURS, method)
                cells[f"CEGM's {column} to its loss"] = "" if method == OURS else overtaking(runs, method, column)
        rows.append((own["loss"].mean(), cells))
    return pd.DataFrame([cells for _, cells in sorted(rows, key=lambda row: row[0])])


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Final loss against length and against seconds, a point per run, a line through the means."""
    names = ordered(runs["method"])
    data = runs.assign(method=runs["method"].map(style.name), seconds=runs["budget"] * runs["pace"])
    panels = []
    titles = {"budget": "steps of the whole schedule", "seconds": "seconds of the whole run"}
    for column, title in titles.items() if runs["pace"].notna().all() else list(titles.items())[:1]:
        x = alt.X(f"{column}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=12))
        y = alt.Y("loss:Q", title="final validation loss, nats per token", scale=alt.Scale(zero=False))
        points = (
            alt.Chart(data)
            .mark_point(size=22, filled=True, opacity=0.7)
            .encode(x, y, style.colour(names), style.shape(names))
        )
        means = data.groupby(["method", "budget"], as_index=False)[["loss", "seconds"]].mean()
        line = alt.Chart(means).mark_line().encode(x, y, style.colour(names), style.dash(names))
        panels.append((line + points).properties(width=340, height=260))
    picture.save(alt.hconcat(*panels, spacing=40), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, help="picture, .svg or .png; the table goes beside it as .csv")
    arguments = parser.parse_args()
    runs = read(arguments.logs)
    table = summary(runs)
    seeds = runs["seed"].nunique()
    print(table.to_string(index=False))
    print(
        f"{seeds} seeds; "
        + ("intervals of 95 %" if seeds >= CLAIM_SEEDS else "a screening, not a claim (that takes 8 seeds)")
    )
    if arguments.output:
        picture.require_ending(arguments.output)
        draw(runs, arguments.output)
        table.to_csv(arguments.output.with_suffix(".csv"), index=False)


if __name__ == "__main__":
    main()

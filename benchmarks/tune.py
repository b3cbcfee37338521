"""Equal tuning budgets: the same grid of learning rate x momentum for every method, on seeds that no comparison uses.

    python benchmarks/tune.py --model_name_or_path reader --per_device_train_batch_size 2 --max_steps 2400 \
      --rates 0.00075,0.0015,0.003,0.006,0.012 --momenta 0.9 --output_dir runs/tune-reader --output benchmarks/results/tuning/reader.json

Every method gets the same number of trials. If a method's best learning rate lies at an edge of its grid, the grid of
*every* method is extended there, until none does. Trials are runs of `cegm train` itself; an interrupted search goes on
where it stopped. The winners are copied by hand into `src/cegm/lab/compare/tuned.yaml`.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from statistics import mean
from typing import Any

from cegm.lab.compare.execute import execute
from cegm.lab.compare.launch import LocalLauncher
from cegm.lab.compare.plan import PlannedRun, plan_run
from cegm.lab.train.run_config import from_mapping

AUX_LEARNING_RATE = 0.003
"""Of embeddings, head and vectors; the same for all methods."""

METHODS = ("adamw", "muon", "cegm")
TUNING_SEEDS = (1000,)


def numbers(text: str) -> list[float]:
    """Comma-separated numbers."""
    return [float(part) for part in text.split(",")]


def settings(method: str, learning_rate: float, momentum: float) -> dict[str, Any]:
    """The grid point in the method's own words: beta 1, momentum, or one minus the entanglement coefficient."""
    own = {
        "adamw": {"betas": [momentum, 0.95]},
        "muon": {"momentum": momentum},
        "cegm": {"entanglement": round(1 - momentum, 6)},
    }
    return {"learning_rate": learning_rate, "aux_lr": AUX_LEARNING_RATE, **own[method]}


def trial(method: str, learning_rate: float, momentum: float, seed: int, shared: dict[str, Any]) -> PlannedRun:
    values = {
        **shared,
        **settings(method, learning_rate, momentum),
        "method": method,
        "seed": seed,
        "threads": 1,
        "progress": False,
    }
    return plan_run(from_mapping(values, "tuning"), "main", {"axes": []})


def search(arguments: argparse.Namespace, shared: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs the grid, extends it while an optimum lies at its edge, and returns one record per trial."""
    rates = list(arguments.rates)
    while True:
        points = list(itertools.product(METHODS, rates, arguments.momenta, TUNING_SEEDS))
        runs = {point: trial(*point, shared) for point in points}
        results = execute(
            arguments.output_dir,
            list(runs.values()),
            LocalLauncher(arguments.processes),
            lambda running, finished: None,
        )
        records = [
            {
                "method": m,
                "learning_rate": r,
                "momentum": b,
                "seed": s,
                **{k: results[runs[m, r, b, s].id].get(k) for k in KEPT},
            }
            for m, r, b, s in points
        ]
        winners = {method: best(records, method)["learning_rate"] for method in METHODS}
        print({"rates": rates, "best": winners}, flush=True)
        if min(winners.values()) == rates[0]:
            rates.insert(0, rates[0] / 2)
        elif max(winners.values()) == rates[-1]:
            rates.append(rates[-1] * 2)
        else:
            return records


SHARED = ("data", "model_name_or_path", "per_device_train_batch_size", "max_steps")
KEPT = ("status", "error", "final_loss", "bits_per_byte", "seconds", "median_step_seconds", "steps")


def best(records: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """The grid point with the lowest mean final loss over the tuning seeds; a point with a failed run cannot win."""
    means: dict[tuple[float, float], float] = {}
    for record in records:
        point = (record["learning_rate"], record["momentum"])
        same = [r for r in records if r["method"] == method and (r["learning_rate"], r["momentum"]) == point]
        means[point] = mean(r["final_loss"] if r["status"] == "finished" else float("inf") for r in same)
    rate, momentum = min(means, key=lambda point: means[point])
    return {"learning_rate": rate, "momentum": momentum, "final_loss": means[rate, momentum]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="world")
    parser.add_argument("--model_name_or_path", default="tiny")
    parser.add_argument("--per_device_train_batch_size", type=int, default=8)
    parser.add_argument("--max_steps", type=int)
    parser.add_argument("--rates", type=numbers, default=numbers("0.0025,0.005,0.01"))
    parser.add_argument("--momenta", type=numbers, default=numbers("0.9,0.95"))
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    shared = {name: getattr(arguments, name) for name in SHARED if getattr(arguments, name) is not None}
    records = search(arguments, {**shared, "eval_steps": 0})
    winners = {
        method: settings(method, *(best(records, method)[k] for k in ("learning_rate", "momentum")))
        for method in METHODS
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    summary = {"shared": shared, "tuning_seeds": TUNING_SEEDS, "winners": winners, "trials": records}
    arguments.output.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    for method, values in winners.items():
        print(f"{method}: {json.dumps(values)}  {best(records, method)['final_loss']:.4f}")


if __name__ == "__main__":
    main()

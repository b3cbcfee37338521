"""Copies what a claim rests on from a comparison or ablation folder into the repository: numbers and logs as text, one picture; no weights.

python benchmarks/keep.py runs/novels benchmarks/results/novels
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pandas as pd

from cegm import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="comparison or ablation folder")
    parser.add_argument("place", type=Path)
    arguments = parser.parse_args()
    source, place = arguments.source, arguments.place
    (place / "metrics").mkdir(parents=True, exist_ok=True)
    is_ablation = (source / "effects.json").exists()
    for name in ("plan.jsonl", "effects.json" if is_ablation else "verdict.json"):
        shutil.copyfile(source / name, place / name)
    if (source / "costs.json").exists():
        shutil.copyfile(source / "costs.json", place / "costs.json")
    rows = pd.read_parquet(source / "results.parquet")
    rows.to_csv(place / "results.csv", index=False)
    items = pd.read_parquet(source / "items.parquet")
    if len(items):
        keys = ["method", "seed", "role", "level"]
        items.groupby(keys)[["score", "continuous", "chance"]].mean().reset_index().to_csv(
            place / "retention.csv", index=False
        )
    for run in sorted((source / "runs").iterdir()):
        metrics = run / "metrics.jsonl"
        if not metrics.exists():  # died before its first line; results.csv has the error
            continue
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        for line in lines:
            line.pop("layers", None)  # nine tenths of the bytes; the page of the comparison has them
        (place / "metrics" / f"{run.name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report.export_picture(source, place / "picture.svg")
    print(report.table(source))


if __name__ == "__main__":
    main()

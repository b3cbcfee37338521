"""Copies what a claim rests on from a comparison or ablation folder into the repository: numbers and logs as text, one picture; no weights.

python benchmarks/keep.py runs/novels benchmarks/results/novels
python benchmarks/keep.py runs/axes benchmarks/results/axes --every 5 --page   # a fifth of the training lines, and the page
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pandas as pd

from cegm.lab import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="comparison or ablation folder")
    parser.add_argument("place", type=Path)
    parser.add_argument(
        "--every", type=int, default=1, help="of the training lines, keep one in so many; all other lines stay"
    )
    parser.add_argument("--page", action="store_true", help="copy report.html, too (about 1.5 MB)")
    arguments = parser.parse_args()
    source, place = arguments.source, arguments.place
    (place / "metrics").mkdir(parents=True, exist_ok=True)
    for name in ("plan.jsonl", "verdict.json", "overhead.json", "drill.json"):
        if (source / name).exists():
            shutil.copyfile(source / name, place / name)
    rows = pd.read_parquet(source / "results.parquet")
    rows.to_csv(place / "results.csv", index=False)
    items = pd.read_parquet(source / "items.parquet")
    if len(items):
        keys = ["method", "seed", "role", "axis", "subset", "level"]
        scores = items.groupby(keys)[["score", "continuous", "chance"]].mean().round(6)
        scores.assign(items=items.groupby(keys).size()).reset_index().to_csv(place / "levels.csv", index=False)
    for run in sorted((source / "runs").iterdir()):
        metrics = run / "metrics.jsonl"
        if not metrics.exists():  # died before its first line; results.csv has the error
            continue
        lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            line.pop("layers", None)  # nine tenths of the bytes; the page of the comparison has them
        training = [line for line in lines if line["kind"] == "train"]
        dropped = {id(line) for index, line in enumerate(training) if index % arguments.every}
        lines = [line for line in lines if id(line) not in dropped]
        (place / "metrics" / f"{run.name}.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
        )
    report.export_picture(source, place / "picture.svg")
    if arguments.page:
        shutil.copyfile(source / "report.html", place / "report.html")
    print(report.table(source))


if __name__ == "__main__":
    main()

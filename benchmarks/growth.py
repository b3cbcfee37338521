"""How the cost of a token grows with width, depth, batch and context length: exponents, measured beside those of the arithmetic.

    python benchmarks/growth.py benchmarks/results/step_cost/growth.jsonl --output benchmarks/results/step_cost/growth.svg

Reads logs of `step_cost.py`. Sizes with the same methods that differ in one axis only, and in at least three values of it, are one curve; its
exponent is the slope of log seconds per token over the log of the axis, by least squares, with a 95 % interval from resampling the
rounds of each point. The exponent of the arithmetic is the same slope over the counted operations of the same sizes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from cegm.lab.report import picture, style
from step_cost import AXES, FLOORED

WORDS = {
    "hidden": "hidden width",
    "tokens": "tokens per batch",
    "length": "tokens per row",
    "layers": "layers",
}
LEAST_POINTS = 3
RESAMPLES = 2000


def curves(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Per axis, the largest set of lines that differ in it alone, ordered by it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for axis in AXES:
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for line in lines:
            fixed = tuple(line[other] for other in (*AXES, "threads", "device") if other != axis)
            groups.setdefault((*fixed, *line["methods"]), []).append(line)
        largest = max(groups.values(), key=len)
        if len({line[axis] for line in largest}) >= LEAST_POINTS:
            found[axis] = sorted(largest, key=lambda line: int(line[axis]))
    return found


def slope(values: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Exponents of power laws, least squares on logarithms; seconds of shape (..., points)."""
    x = np.log(values) - np.log(values).mean()
    return np.asarray(np.log(seconds) @ x / (x @ x))


def exponent(curve: list[dict[str, Any]], axis: str, method: str, rng: np.random.Generator) -> dict[str, Any]:
    """One row of the table."""
    values, tokens = (np.array([line[name] for line in curve], dtype=float) for name in (axis, "tokens"))
    rounds = [np.array(line["methods"][method]["rounds"]) for line in curve]
    means = np.array([times.mean() for times in rounds])
    drawn = [times[rng.integers(0, len(times), (RESAMPLES, len(times)))].mean(axis=1) for times in rounds]
    low, high = np.quantile(slope(values, np.stack(drawn, axis=1) / tokens), [0.025, 0.975])
    row = {
        "axis": WORDS[axis],
        "from": int(values[0]),
        "to": int(values[-1]),
        "method": style.name(method),
        "measured": f"{float(slope(values, means / tokens)):+.2f} [{low:+.2f}, {high:+.2f}]",
        "arithmetic": "",
    }
    if method in FLOORED:
        counts = np.array([operations(line["methods"][method]) for line in curve])
        row["arithmetic"] = f"{float(slope(values, counts / tokens)):+.2f}"
    return row


def operations(found: dict[str, Any]) -> float:
    """Of a mean step."""
    parts = found["floor_operations"]
    return float(
        parts["forward_backward"] + parts["step"] + (parts["capture"] + parts["refresh"]) / found["refresh_every"]
    )


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A panel per axis: microseconds per token of whole steps."""
    rows = [
        {
            "axis": WORDS[axis],
            "value": line[axis],
            "method": style.name(method),
            "microseconds": 1e6 * own["seconds_per_step"] / line["tokens"],
        }
        for axis, curve in found.items()
        for line in curve
        for method, own in line["methods"].items()
    ]
    data = pd.DataFrame(rows)
    names = list(next(iter(found.values()))[0]["methods"])
    panels = []
    for axis, part in data.groupby("axis", sort=False):
        x = alt.X("value:Q", title=str(axis), scale=alt.Scale(type="log", nice=False, padding=12))
        y = alt.Y("microseconds:Q", title="microseconds per token, whole step", scale=alt.Scale(type="log", nice=False))
        base = alt.Chart(part)
        line = base.mark_line().encode(x, y, style.colour(names), style.dash(names))
        points = base.mark_point(filled=True, size=40).encode(x, y, style.colour(names), style.shape(names))
        panels.append((line + points).properties(width=300, height=220))
    picture.save(alt.concat(*panels, columns=2, spacing=40), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", type=Path, nargs="+", help="logs of step_cost.py")
    parser.add_argument("--output", type=Path, help="picture, .svg or .png; the table goes beside it as .csv")
    arguments = parser.parse_args()
    lines = [json.loads(line) for path in arguments.logs for line in path.read_text(encoding="utf-8").splitlines()]
    found = curves(lines)
    if not found:
        raise SystemExit(f"no axis has {LEAST_POINTS} sizes that differ in it alone; give step_cost.py a list")
    rng = np.random.default_rng(0)
    rows = [exponent(curve, axis, method, rng) for axis, curve in found.items() for method in curve[0]["methods"]]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if arguments.output:
        picture.require_ending(arguments.output)
        draw(found, arguments.output)
        table.to_csv(arguments.output.with_suffix(".csv"), index=False)


if __name__ == "__main__":
    main()

"""Which runs of a comparison may be set side by side, and which are left out and why."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

Pair = tuple[str, str]
Run = dict[Hashable, Any]


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that have a result."""
    return runs[runs["status"] == "finished"]


def paired_seeds(runs: pd.DataFrame, pair: Pair) -> list[int]:
    """Seeds on which both methods finished with the same initial weights and, at equal steps, the same batches."""
    first, second = _by_seed(runs, pair)
    return sorted(seed for seed in first.keys() & second.keys() if refusal(first[seed], second[seed]) is None)


def refused(results: pd.DataFrame, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """One line for each pair, seed and role whose hashes disagree."""
    lines = []
    for role, runs in results.groupby("role"):
        for pair in pairs:
            first, second = _by_seed(runs, pair)
            for seed in sorted(first.keys() & second.keys()):
                reason = refusal(first[seed], second[seed])
                if reason is not None:
                    lines.append({"pair": list(pair), "seed": seed, "role": str(role), "reason": reason})
    return lines


def failed(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Every run without a result, with its error."""
    rows = results[results["status"] != "finished"].to_dict("records")
    return [
        {
            "id": str(row["id"]),
            "method": row["method"],
            "seed": int(row["seed"]),
            "role": row["role"],
            "error": row["error"] if isinstance(row["error"], str) else "no error message",
            "attempts": int(row["attempts"]) if pd.notna(row["attempts"]) else None,
        }
        for row in rows
    ]


def _by_seed(runs: pd.DataFrame, pair: Pair) -> tuple[dict[int, Run], dict[int, Run]]:
    """The finished runs of each of the two methods."""
    rows = finished(runs).to_dict("records")
    first, second = ({int(row["seed"]): row for row in rows if row["method"] == method} for method in pair)
    return first, second


def refusal(first: Run, second: Run) -> str | None:
    """Why two finished runs of one seed must not be compared, or None."""
    if first.get("reads_otherwise") or second.get("reads_otherwise"):
        return None
    if first["initial_hash"] != second["initial_hash"]:
        return "different initial weights (initial_hash differs)"
    equal_steps = "equal_seconds" not in (first["role"], second["role"])
    if equal_steps and first["batch_hash"] != second["batch_hash"]:
        return "different batches (batch_hash differs)"
    return None

"""Pairs are runs of one seed with the same start and, at equal steps, the same batches."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cegm.lab.compare import pairing

PAIR = ("cegm", "adamw")


def runs(*rows: tuple[str, int, str, str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["method", "seed", "status", "initial_hash", "batch_hash"])
    return frame.assign(role="main", id="x", error=None, attempts=1)


def both(seed: int, **second: Any) -> list[tuple[str, int, str, str, str]]:
    own = {"status": "finished", "initial_hash": "w", "batch_hash": "b"}
    return [("cegm", seed, *own.values()), ("adamw", seed, *{**own, **second}.values())]


def test_only_finished_runs_with_the_same_start_and_batches_are_paired() -> None:
    frame = runs(
        *both(4),
        *both(0),
        *both(1, status="failed"),
        *both(2, initial_hash="v"),
        *both(3, batch_hash="c"),
        ("cegm", 5, "finished", "w", "b"),
    )
    assert pairing.paired_seeds(frame, PAIR) == [0, 4]
    assert pairing.paired_seeds(frame, ("cegm", "muon")) == []
    assert [(line["seed"], line["reason"].split(" (")[0]) for line in pairing.refused(frame, [PAIR])] == [
        (2, "different initial weights"),
        (3, "different batches"),
    ]


def test_at_equal_seconds_batches_may_differ() -> None:
    frame = runs(*both(0, batch_hash="longer")).assign(role=["main", "equal_seconds"])
    assert pairing.paired_seeds(frame, PAIR) == [0]
    assert pairing.refused(frame, [PAIR]) == []


def test_failed_runs_are_listed_with_or_without_a_message() -> None:
    frame = runs(*both(0, status="failed"), *both(1, status="failed"))
    frame["error"] = [None, "killed", None, float("nan")]
    frame["attempts"] = [1, 2, 1, float("nan")]
    assert [(line["method"], line["seed"], line["error"], line["attempts"]) for line in pairing.failed(frame)] == [
        ("adamw", 0, "killed", 2),
        ("adamw", 1, "no error message", None),
    ]

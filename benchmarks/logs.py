"""Reads the committed logs below benchmarks/results, and writes numbers, effects and tables as Markdown shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

LOGS = Path(__file__).parent / "results"
MINUS = "\N{MINUS SIGN}"
Interval = Sequence[float] | None


def load(path: str) -> Any:
    """A log that is one JSON value."""
    return json.loads((LOGS / path).read_text(encoding="utf-8"))


def lines(path: str) -> list[dict[str, Any]]:
    """A log of one JSON value a line."""
    return [json.loads(line) for line in (LOGS / path).read_text(encoding="utf-8").splitlines() if line]


def verdict(folder: str) -> dict[str, Any]:
    """What `cegm compare` found, its measures by name."""
    found: dict[str, Any] = load(f"{folder}/verdict.json")
    return {**found, "measures": {measure["name"]: measure for measure in found["measures"]}}


def pair(measure: dict[str, Any], first: str, second: str) -> dict[str, Any]:
    """One pair of a measure of a verdict."""
    return next(each for each in measure["pairs"] if each["pair"] == [first, second])


def arm(effects: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The arm of an ablation that changes exactly this."""
    return next(each for each in effects["arms"] if each["changes"] == changes)


def typeset(text: str) -> str:
    """Minus signs in place of hyphens before digits."""
    return re.sub(r"-(?=\d)", MINUS, text)


def number(value: float, form: str = "+.3f") -> str:
    """A number without the sign of a rounded zero."""
    text = format(value, form)
    return typeset(text if float(text.replace(",", "")) else text.replace("-", "+"))


def estimate(value: float, interval: Interval, form: str = "+.3f") -> str:
    """An effect and its interval."""
    shown = number(value, form)
    return shown if interval is None else f"{shown} [{', '.join(number(end, form) for end in interval)}]"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of GitHub's Markdown."""
    body = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in body)

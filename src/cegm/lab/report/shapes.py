"""What the records of a folder must look like before a page is drawn from them; what does not is refused by name, not half drawn."""

from __future__ import annotations

import reprlib
from typing import Any

from cegm.lab.strict import is_count

Record = dict[str, Any]

COUNTS = ("step", "steps", "tokens")
SECTIONS = ("config", "versions", "hashes", "model", "tokens")
"""Of `config.yaml`."""

NUMBERS = (
    "final_loss", "bits_per_byte", "seconds", "median_step_seconds", "tokens", "steps", "memory_bytes", "optimizer_state_bytes", "parameters",
    "attempts", "trained_length", "skipped_steps", "spikes",
)  # fmt: skip
"""Of `result.json`."""

LARGEST = 1e300
"""Of a number that can still be drawn."""


def metrics(line: Record, place: str) -> Record:
    """A line of `metrics.jsonl`.

    Args:
        line: The line.
        place: File and line, which begins the error message.

    Raises:
        ValueError: A value that no run writes, by name.
    """
    for name, value in line.items():
        _require(_is_metric(name, value), name, value, place)
    needed = {"train": ("step", "tokens"), "validation": ("step", "tokens"), "final": ("steps", "tokens")}
    for name in ("kind", *needed.get(line.get("kind", ""), ())):
        _require(name in line, name, None, place)
    return line


def config(values: Any, place: str) -> Record:
    """The content of `config.yaml`.

    Raises:
        ValueError: A section that is none, by name.
    """
    found: Record = {} if values is None else values
    _require(isinstance(found, dict), "the file", found, place)
    for name in SECTIONS:
        _require(isinstance(found.get(name, {}), dict), name, found.get(name), place)
    run: Record = found.get("config", {})
    _require(isinstance(run.get("method", ""), str), "method", run.get("method"), place)
    _require(is_count(run.get("seed", 0)), "seed", run.get("seed"), place)
    return found


def plan(line: Record, place: str) -> Record:
    """A line of `plan.jsonl`, or a `result.json` that stands in for it.

    Raises:
        ValueError: What is needed to find and name a run is missing or of another type.
    """
    for name in ("id", "method", "role"):
        _require(isinstance(line.get(name), str), name, line.get(name), place)
    _require(is_count(line.get("seed")), "seed", line.get("seed"), place)
    _require(isinstance(line.get("config", {}), dict), "config", line.get("config"), place)
    return line


def result(values: Record, place: str) -> Record:
    """The content of `result.json`.

    Raises:
        ValueError: A value of another type, by name.
    """
    for name in NUMBERS:
        _require(_is_number(values.get(name)), name, values.get(name), place)
    for name in ("status", "error"):
        _require(isinstance(values.get(name), str | None), name, values.get(name), place)
    if values.get("status") == "finished":
        _require(is_count(values.get("tokens")), "tokens", values.get("tokens"), place)
    for name in ("retention", "axes"):
        _require(_is_table(values.get(name) or {}), name, values.get(name), place)
    for name, cell in (values.get("retention") or {}).items():
        _require(name.isdecimal() and all(map(_is_number, cell.values())), f"retention at {name}", cell, place)
    return values


def _is_metric(name: str, value: Any) -> bool:
    if name == "kind":
        return isinstance(value, str)
    if name.endswith("_hash"):
        return isinstance(value, str | None)
    if name == "refreshed":
        return isinstance(value, bool)
    if name == "layers":
        return _is_table(value) and all(_is_number(number) for numbers in value.values() for number in numbers.values())
    return is_count(value) and value < LARGEST if name in COUNTS else _is_number(value)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(row, dict) for row in value.values())


def _is_number(value: Any) -> bool:
    """A number that can be drawn, or none."""
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > LARGEST
    )


def _require(holds: bool, name: str, value: Any, place: str) -> None:
    if not holds:
        raise ValueError(
            f"{place} has {name}={reprlib.repr(value)}, which no run writes; restore the file or run again"
        )

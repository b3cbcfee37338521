"""What a comparison judges: the measures of a run, and one for every axis that was examined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Measure:
    """What is compared.

    Attributes:
        name: Key in `verdict.json`.
        title: In words.
        unit: Unit of the per-method values.
        better: Which direction is good.
        kind: `difference` (first minus second), `ratio` (first over second), `items` (paired items), `time` (to a
            target, with misses), or `count` (a ratio of exact counts, the same on all seeds, that needs no test).
        family: `primary` for the declared measure of an axis, else `exploratory`.
        column: Column of the results that holds it.
    """

    name: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    kind: Literal["difference", "ratio", "items", "time", "count"]
    family: Literal["primary", "exploratory"]
    column: str


MEASURES = (
    Measure("bits_per_byte", "Validation loss at equal steps", "bits per byte", "lower", "difference", "primary", "bits_per_byte"),
    Measure("retention", "Context retention, mean over lengths", "accuracy", "higher", "items", "primary", "retention"),
    Measure("equal_seconds", "Validation loss at equal seconds", "bits per byte", "lower", "difference", "exploratory", "bits_per_byte"),
    Measure("steps_to_target", "Steps to AdamW's final loss", "steps", "lower", "time", "exploratory", "steps_to_target"),
    Measure("step_time", "Time per step", "seconds", "lower", "ratio", "exploratory", "median_step_seconds"),
    Measure("memory", "Peak memory", "bytes", "lower", "ratio", "exploratory", "memory_bytes"),
    Measure("optimizer_state", "Optimizer state", "bytes", "lower", "count", "exploratory", "optimizer_state_bytes"),
)  # fmt: skip


def with_axes(declared: Iterable[Measure], examined: Iterable[str]) -> list[Measure]:
    """The declared measures, and behind the last primary one a measure for every other axis that was examined, in the paper's order."""
    measures, names = list(declared), set(examined)
    more = names - {measure.name for measure in measures}
    if not more:
        return measures
    from cegm.lab.tasks.axes import AXES  # needs what examinations need; comparisons without axes do not

    found = [
        Measure(axis.name, axis.title, axis.unit, axis.better, "items", "primary", axis.name)
        for axis in AXES.values()
        if axis.name in more
    ]
    place = max(index for index, measure in enumerate(measures) if measure.family == "primary") + 1
    return [*measures[:place], *found, *measures[place:]]


def primary_subsets(axis: str) -> tuple[str, ...]:
    """Subsets that make up the primary measure of an axis; empty for all of them."""
    from cegm.lab.tasks.axes import AXES

    return AXES[axis].primary if axis in AXES else ()


def about(measure: Measure) -> dict[str, Any]:
    """What `verdict.json` says of a measure itself."""
    return {
        "name": measure.name,
        "title": measure.title,
        "unit": measure.unit,
        "better": measure.better,
        "effect": "difference" if measure.kind in ("difference", "items", "time") else "ratio",
        "family": measure.family,
    }

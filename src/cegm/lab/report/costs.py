"""Costs in plain sentences: memory and state beside another method, time from steps in turns, and what was not measured."""

from __future__ import annotations

from cegm.lab.baselines import ordered
from cegm.lab.report import style, words
from cegm.lab.report.folder import Record
from cegm.lab.report.judged import Judged

UNTIMED = (
    "The time per step was not compared: runs share the machine, so no ratio of their times is given. "
    "--overhead times steps in turns."
)


def beside(verdict: Judged, other: str) -> str:
    """One sentence on memory and state against another method; of time, only steps in turns give a ratio."""
    parts = []
    for name, topic in (
        ("memory", "the peak memory"),
        ("optimizer_state", "the optimizer state"),
    ):
        entry = verdict.entry(name, other)
        if entry is not None:
            spread = words.NONE if entry["p"] is None else words.spread({"effect": "ratio"}, entry)
            known = f" ({'95 % interval' if entry['interval'] else 'by seed'} {spread})" if spread != words.NONE else ""
            parts.append(f"{entry['effect']:.3f} {words.TIMES} {topic}{known}")
    subject = style.name(verdict.subject)
    return f"Compared with {style.name(other)}, {subject} takes {', '.join(parts)}." if parts else ""


def ranges(overhead: Record | None) -> list[str]:
    """The range of every method's step over the reference's."""
    points = [point for point in (overhead or {"points": []})["points"] if "methods" in point]
    if overhead is None or not points:
        return []
    methods = [method for method in ordered(overhead["methods"]) if method != overhead["reference"]]
    return [_range(points, method, overhead["reference"]) for method in methods]


def unmeasured(overhead: Record | None, drill: Record | None) -> list[str]:
    """Shapes, and methods with their seeds, that could not be measured, and why."""
    shapes = [point for point in (overhead or {"points": []})["points"] if "error" in point]
    seeds = [point for point in (drill or {"points": []})["points"] if "error" in point]
    return [
        *(f"No overhead was measured at {_shape(point)}: {point['error']}." for point in shapes),
        *(f"{style.name(p['method'])} was not drilled on seed {p['seed']}: {p['error']}." for p in seeds),
    ]


def _range(points: list[Record], method: str, reference: str) -> str:
    times = [point["methods"][method]["ratio"]["estimate"] for point in points]
    memory = [point["methods"][method]["peak_ratio"] for point in points]
    dearest = points[times.index(max(times))]
    return (
        f"Over {len(points)} shape{'s' * (len(points) != 1)}, a step of {style.name(method)} takes {min(times):.2f} to "
        f"{max(times):.2f} {words.TIMES} the time of {style.name(reference)}'s (most at {_shape(dearest)}) and "
        f"{min(memory):.2f} to {max(memory):.2f} {words.TIMES} its peak memory."
    )


def _shape(point: Record) -> str:
    return f"width {point['width']}, {point['batch']} x {point['length']} tokens"

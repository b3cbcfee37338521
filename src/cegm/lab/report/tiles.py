"""The three numbers of the first screen: quality, time and memory, each with how sure it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

from cegm.lab.baselines import BASE
from cegm.lab.report import style, words
from cegm.lab.report.folder import Folder, Record, Run, finite
from cegm.lab.report.judged import LOSS, Judged, judged
from cegm.lab.report.overhead_chart import own_shape

NOT_TIMED = "Runs share the machine, so no ratio of their times is given; --overhead times steps in turns."


@dataclass(frozen=True)
class Tile:
    """One number and what stands beside it.

    Attributes:
        title: What it is about.
        value: The number, large.
        about: What it is a number of, in a few words.
        word: Word of the verdict; empty without one.
        more: Further numbers, a line each, with their words.
        note: How it was measured, or why not.
    """

    title: str
    value: str
    about: str = ""
    word: str = ""
    more: list[tuple[str, str]] = field(default_factory=list)
    note: str = ""


def tiles(folder: Folder) -> list[Tile]:
    """Quality, time and memory of a folder; none of a comparison that is not judged yet."""
    verdict = judged(folder)
    if folder.is_comparison and verdict is None:
        return []
    if verdict is None or len(verdict.methods) < 2:
        return _alone(folder)
    if folder.is_ablation:
        return _of_changes(folder, verdict)
    return [
        _measured("Quality", "loss at equal steps, bits per byte", LOSS, verdict),
        _timed(folder.overhead, verdict),
        _measured("Memory", "peak memory of training", "memory", verdict),
    ]


def _measured(title: str, what: str, name: str, verdict: Judged) -> Tile:
    """A measure of the subject against the baseline, then against the others."""
    measure = verdict.measure(name)
    told = [
        (style.name(other), words.effect(measure, entry["effect"]), _spread(measure, entry), entry["word"])
        for other in reversed(verdict.methods[1:])
        if (entry := verdict.entry(name, other)) is not None
    ]
    if not told:
        return Tile(title, words.NONE, note=f"{what[0].upper()}{what[1:]}: not measured.")
    (first, value, spread, word), *rest = told
    more = [(f"against {other}: {size}{own}", found) for other, size, own, found in rest]
    return Tile(title, value, f"against {first}{spread}", word, more, f"{what[0].upper()}{what[1:]}.")


def _spread(measure: Record, entry: Record) -> str:
    """Interval or seeds behind a comma; nothing where a number has no spread."""
    shown = words.spread(measure, entry)
    if shown == words.NONE or entry["p"] is None:
        return ""
    return f", {'95 % interval' if entry['interval'] else 'by seed'} {shown}"


def _timed(overhead: Record | None, verdict: Judged) -> Tile:
    """Time of a step at the comparison's own shape over the reference's, from steps in turns and from nothing else."""
    point = own_shape(overhead)
    if overhead is None or point is None or verdict.subject not in point["methods"]:
        return Tile("Time", words.NONE, "not measured", note=NOT_TIMED)
    told = {
        method: _factor(point["methods"][method]["ratio"])
        for method in verdict.methods
        if method in point["methods"] and method != overhead["reference"]
    }
    if verdict.subject not in told:
        return Tile("Time", words.NONE, "not measured", note=f"{style.name(verdict.subject)} is itself the reference.")
    value, spread = told.pop(verdict.subject)
    more = [(f"{style.name(method)}'s: {size}{own}", "") for method, (size, own) in told.items()]
    note = f"Time of a step, from {overhead['how']} at the shape of the runs."
    return Tile("Time", value, f"that of {style.name(overhead['reference'])}{spread}", "", more, note)


def _factor(ratio: Record) -> tuple[str, str]:
    """A ratio with its interval, or its blocks where they are too few for one."""
    size = f"{ratio['estimate']:.3f} {words.TIMES}"
    if ratio["low"] is not None:
        return size, f", 95 % interval {ratio['low']:.3f} to {ratio['high']:.3f}"
    return size, f", by block {', '.join(f'{block:.3f}' for block in ratio['points'])}"


def _of_changes(folder: Folder, verdict: Judged) -> list[Tile]:
    """How many changes of an ablation got each word, and what the cheapest and the dearest cost."""
    entries = [entry for change in verdict.changes if (entry := verdict.pair(LOSS, change, BASE))]
    counts = {word: sum(entry["word"] == word for entry in entries) for word in style.WORDS}
    more = [(str(counts[word]), word) for word in ("no evidence", "worse")]
    about = f"of {len(verdict.changes)} changes"
    quality = Tile("Quality", str(counts["better"]), about, "better", more, "Loss at equal steps.")
    points = (folder.overhead or {"points": []})["points"]
    timed = [
        own["ratio"]["estimate"]
        for point in points
        for change, own in point.get("methods", {}).items()
        if change != BASE
    ]
    held = [entry["effect"] for change in verdict.changes if (entry := verdict.pair("memory", change, BASE))]
    time = Tile("Time", _range(timed), "a step of the base", note="Cheapest to dearest change, from steps in turns.")
    if not timed:
        time = Tile("Time", words.NONE, "not measured", note=NOT_TIMED)
    return [
        quality,
        time,
        Tile("Memory", _range(held), "peak memory of the base", note="Smallest to largest over all changes."),
    ]


def _range(factors: list[float]) -> str:
    if not factors:
        return words.NONE
    ends = dict.fromkeys(f"{end(factors):.2f}" for end in (min, max))
    return f"{' to '.join(ends)} {words.TIMES}"


def _alone(folder: Folder) -> list[Tile]:
    """Means over the seeds of what is not compared with anything."""
    runs = folder.finished()
    return [
        Tile("Quality", _mean(runs, "bits_per_byte", "bits_per_byte"), "validation loss at the end, bits per byte"),
        Tile("Time", _mean(runs, "median_step_seconds", "step_time"), "one step, the median"),
        Tile("Memory", _mean(runs, "memory_bytes", "memory"), "peak of the training process"),
    ]


def _mean(runs: list[Run], key: str, measure: str) -> str:
    values = [value for run in runs if (value := finite(run.result.get(key))) is not None]
    return words.value(measure, fmean(values)) if values else words.NONE

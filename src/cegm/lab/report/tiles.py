"""The three numbers of the first screen: quality, time and memory, each with how sure it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from cegm.lab.baselines import BASE
from cegm.lab.report import style, words
from cegm.lab.report.judged import LOSS, Judged, judged
from cegm.lab.report.overhead_chart import own_shape
from cegm.lab.report.runs import Folder, Record
from cegm.lab.report.words import told


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
    value: str = words.NONE
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
        return _of_changes(folder.overhead, verdict)
    time = _timed(folder.overhead, verdict)
    return [_measured("Quality", LOSS, verdict), time, _measured("Memory", "memory", verdict)]


def _measured(title: str, name: str, verdict: Judged) -> Tile:
    """A measure of the subject against the baseline, then against the others."""
    measure = verdict.measure(name)
    found = [
        (style.name(other), words.effect(measure, entry["effect"]), words.spread_named(measure, entry), entry["word"])
        for other in reversed(verdict.methods[1:])
        if (entry := verdict.entry(name, other)) is not None
    ]
    note = told("tiles", "measured", name=name, found=bool(found))
    if not found:
        return Tile(title, note=note)
    (first, value, spread, word), *rest = found
    more = [(told("tiles", "against", other=other, size=size, spread=own), got) for other, size, own, got in rest]
    return Tile(title, value, told("tiles", "against", other=first, spread=spread), word, more, note)


def _timed(overhead: Record | None, verdict: Judged) -> Tile:
    """Time of a step at the comparison's own shape over the reference's, from steps in turns and from nothing else."""
    point = own_shape(overhead)
    if overhead is None or point is None or verdict.subject not in point["methods"]:
        return Tile("Time", about="not measured", note=told("tiles", "not_timed"))
    if verdict.subject == overhead["reference"]:
        note = told("tiles", "is_reference", method=style.name(verdict.subject))
        return Tile("Time", about="not measured", note=note)
    found = {
        method: (f"{ratio['estimate']:.3f} {words.TIMES}", told("tiles", "ratio_spread", ratio=ratio))
        for method in verdict.methods
        if method != overhead["reference"] and (ratio := point["methods"].get(method, {}).get("ratio"))
    }
    value, spread = found.pop(verdict.subject)
    more = [
        (told("tiles", "own", method=style.name(method), size=size, spread=own), "")
        for method, (size, own) in found.items()
    ]
    about = told("tiles", "that_of", method=style.name(overhead["reference"]), spread=spread)
    return Tile("Time", value, about, "", more, told("tiles", "timed", how=overhead["how"]))


def _of_changes(overhead: Record | None, verdict: Judged) -> list[Tile]:
    """How many changes of an ablation got each word, and what the cheapest and the dearest cost."""
    entries = [entry for change in verdict.changes if (entry := verdict.pair(LOSS, change, BASE))]
    counts = {word: str(sum(entry["word"] == word for entry in entries)) for word in style.WORDS}
    points = [point.get("methods", {}) for point in (overhead or {}).get("points", ())]
    timed = [own["ratio"]["estimate"] for methods in points for change, own in methods.items() if change != BASE]
    held = [entry["effect"] for change in verdict.changes if (entry := verdict.pair("memory", change, BASE))]
    more = [(counts[word], word) for word in ("no evidence", "worse")]
    about = told("tiles", "of_changes", count=len(verdict.changes))
    time = Tile("Time", about="not measured", note=told("tiles", "not_timed"))
    if timed:
        time = Tile("Time", _range(timed), _of("base_step"), note=_of("time"))
    memory = Tile("Memory", _range(held), _of("base_memory"), note=_of("memory"))
    return [Tile("Quality", counts["better"], about, "better", more, _of("quality")), time, memory]


def _of(name: str) -> str:
    return told("tiles", "over_changes", name=name)


def _range(factors: list[float]) -> str:
    ends = dict.fromkeys(f"{end(factors):.2f}" for end in (min, max)) if factors else ()
    return f"{' to '.join(ends)} {words.TIMES}" if factors else words.NONE


def _alone(folder: Folder) -> list[Tile]:
    """Means over the seeds of what is not compared with anything."""
    sources = (("Quality", LOSS, "bits_per_byte"), ("Time", "step_time", "median_step_seconds"))
    return [
        Tile(
            title,
            words.value(name, words.mean(run.result.get(key) for run in folder.finished())),
            told("tiles", "alone", name=name),
        )
        for title, name, key in (*sources, ("Memory", "memory", "memory_bytes"))
    ]

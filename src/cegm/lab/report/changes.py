"""An ablation in plain sentences and rows: every change against its base, part by part. Pure functions of `verdict.json`."""

from __future__ import annotations

from collections import Counter

from cegm.lab.baselines import BASE
from cegm.lab.report import words
from cegm.lab.report.folder import Record
from cegm.lab.report.judged import LOSS, Judged

COLUMNS = ("change", "part", "effect, bits/byte", "95 % interval or each seed", "word", f"step {words.TIMES}")

BEWARE = (
    "Every change ran at the base's settings. The learning rate was not tuned again for each change, so a change that needs "
    "another one looks worse than it is.",
    "An ablation chooses on its own seeds, and the best of many looks better than it is. What was chosen here must be "
    "confirmed on other seeds.",
)

WORDS = ("better", "worse", "no evidence", "not compared")


def headline(verdict: Judged) -> str:
    """How many changes are better, worse or neither, and on how many seeds."""
    counts = Counter(_word(verdict, LOSS, change) for change in verdict.changes)
    told = (
        f"{counts['better'] or 'none'} better than the base, {counts['worse'] or 'none'} worse, "
        f"{counts['no evidence'] or 'none'} without evidence of a difference"
    )
    if counts["not compared"]:
        told += f", {counts['not compared']} not compared"
    screening = " A screening, not a claim." if verdict.verdict["screening"] else ""
    tried, seeds = _count(len(verdict.changes), "change"), _count(len(verdict.verdict["seeds"]), "seed")
    return f"{tried} tried on {seeds}: {told}.{screening}"


def answers(verdict: Judged) -> list[str]:
    """What the changes of each part say to its question, a paragraph each."""
    told = []
    for part in verdict.parts:
        found = _answer(verdict, LOSS, part["arms"])
        longer = [change for change in part["arms"] if verdict.pair("equal_seconds", change, BASE)]
        if longer:
            found += f" In the base's training time: {_answer(verdict, 'equal_seconds', longer)}"
        told.append(f"{part['part']}: {part['question']} {found}".replace(":  ", ": "))
    return told


def _answer(verdict: Judged, name: str, changes: list[str]) -> str:
    """The changes by their word, lowest effect first, each with its size and spread."""
    by_word: dict[str, list[str]] = {word: [] for word in WORDS}
    for change in by_effect(verdict, name, changes):
        entry = verdict.pair(name, change, BASE)
        size = "" if entry is None else f" ({verdict.detail(name, entry)})"
        by_word[_word(verdict, name, change)].append(f"{change}{size}")
    text = "; ".join(f"{word}: {', '.join(told)}" for word, told in by_word.items() if told)
    return f"{text[:1].upper()}{text[1:]}."


def rows(verdict: Judged, overhead: Record | None) -> list[tuple[str, ...]]:
    """Every change as a line of the terminal's table, lowest effect first."""
    parts = {change: part["part"] for part in verdict.parts for change in part["arms"]}
    measure = verdict.measure(LOSS)
    told: list[tuple[str, ...]] = []
    for change in by_effect(verdict, LOSS, verdict.changes):
        entry = verdict.pair(LOSS, change, BASE)
        sizes = (words.effect(measure, entry["effect"]), words.spread(measure, entry)) if entry else (words.NONE,) * 2
        told.append((change, parts[change], *sizes, _word(verdict, LOSS, change), _ratio(overhead, change)))
    return told


def by_effect(verdict: Judged, name: str, changes: list[str]) -> list[str]:
    """Changes from the lowest effect to the highest; those without one last."""
    entries = {change: verdict.pair(name, change, BASE) for change in changes}
    sizes = {change: entry["effect"] for change, entry in entries.items() if entry is not None}
    return [*sorted(sizes, key=lambda change: sizes[change]), *(change for change in changes if change not in sizes)]


def _word(verdict: Judged, name: str, change: str) -> str:
    entry = verdict.pair(name, change, BASE)
    return "not compared" if entry is None else str(entry["word"])


def _ratio(overhead: Record | None, change: str) -> str:
    points = [] if overhead is None else overhead["points"]
    found = [point["methods"][change]["ratio"]["estimate"] for point in points if change in point.get("methods", {})]
    return f"{found[0]:.3f}" if found else words.NONE


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"

"""An ablation as sentences and rows: every change against its base, part by part."""

from __future__ import annotations

from collections import Counter

from cegm.lab.baselines import BASE
from cegm.lab.report import words
from cegm.lab.report.judged import LOSS, Judged
from cegm.lab.report.runs import Record
from cegm.lab.report.words import told

WORDS = ("better", "worse", "no evidence", "not compared")


def headline(verdict: Judged) -> str:
    """How many changes are better, worse or neither, and on how many seeds."""
    counts = Counter(_word(verdict, LOSS, change) for change in verdict.changes)
    return told("sentences", "changes", verdict=verdict, counts=counts)


def answers(verdict: Judged) -> list[str]:
    """What the changes of each part say to its question, a paragraph each."""
    paragraphs = []
    for part in verdict.parts:
        longer = [change for change in part["arms"] if verdict.pair("equal_seconds", change, BASE)]
        found = {"found": _by_word(verdict, LOSS, part["arms"]), "longer": _by_word(verdict, "equal_seconds", longer)}
        paragraphs.append(told("sentences", "part", part=part, **found))
    return paragraphs


def _by_word(verdict: Judged, name: str, changes: list[str]) -> dict[str, list[str]]:
    """Changes with their size and spread by the word that they got, lowest effect first."""
    found: dict[str, list[str]] = {word: [] for word in WORDS}
    for change in by_effect(verdict, name, changes):
        entry = verdict.pair(name, change, BASE)
        size = "" if entry is None else f" ({verdict.detail(name, entry)})"
        found[_word(verdict, name, change)].append(f"{change}{size}")
    return found if changes else {}


def rows(verdict: Judged, overhead: Record | None) -> list[tuple[str, ...]]:
    """Every change, lowest effect first: its part, effect, spread and word, and its time over the base's."""
    parts = {change: part["part"] for part in verdict.parts for change in part["arms"]}
    measure = verdict.measure(LOSS)
    found: list[tuple[str, ...]] = []
    for change in by_effect(verdict, LOSS, verdict.changes):
        entry = verdict.pair(LOSS, change, BASE)
        sizes = (words.effect(measure, entry["effect"]), words.spread(measure, entry)) if entry else (words.NONE,) * 2
        found.append((change, parts[change], *sizes, _word(verdict, LOSS, change), _ratio(overhead, change)))
    return found


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

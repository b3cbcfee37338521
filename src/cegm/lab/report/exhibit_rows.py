"""The rows of the paper's tables and figures: every level, the whole as it was judged, and what sums it up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean
from typing import Any

from cegm.lab.report import words
from cegm.lab.report.claims import Claim, ClaimedRow
from cegm.lab.report.judged import Judged
from cegm.lab.report.levels import wrong_steps
from cegm.lab.report.runs import Record

STEPS = "steps_to_target"
WHOLE = "Mean, as judged"
HOME = "home after "
"""Subsets that begin with this tell what adapting to a domain did to the home text."""


@dataclass(frozen=True)
class Row:
    """A row of an exhibit.

    Attributes:
        name: First column.
        cells: A value per method, the baseline first and the subject last.
        part: Second column; empty for none.
        guess: Chance, or what the control of the row gets.
        difference: Subject minus baseline.
        interval: Its 95 % interval, or the difference of each seed.
        word: Word of the verdict; empty where nothing was judged.
        claimed: What the paper claims, from baseline to CEGM, and the gain; empty for none.
        whole: Whether it sums up the exhibit.
        span: Rows that share the name and the claim; 0 for those below the first.
    """

    name: str
    cells: tuple[str, ...]
    part: str = ""
    guess: str = words.NONE
    difference: str = words.NONE
    interval: str = words.NONE
    word: str = ""
    claimed: str = ""
    whole: bool = False
    span: int = 1


def rows_of(claim: Claim, verdict: Judged) -> tuple[list[Row], list[Row]]:
    """The rows of an exhibit, and those that are folded away."""
    if not claim.axes:
        return _convergence(verdict), []
    if len(claim.axes) > 1:
        return _spanned(_by_axis(claim, verdict)), []
    axis = claim.axes[0]
    if claim.rows:
        return _spanned(_table(claim, axis, verdict)), _spanned(_forgetting(axis, verdict))
    special = {"efficiency": _costs, "drift": _last_rewrite, "steps": _wrong}.get(axis)
    levels = [*verdict.levels(axis), *verdict.controls(axis)]
    return (
        [_whole(WHOLE, axis, verdict), *(special(verdict) if special else ())],
        _spanned([_level(_named(entry), "", axis, [entry], verdict) for entry in levels]),
    )


def _spanned(rows: list[Row]) -> list[Row]:
    """Rows of one name in a row share its cell."""
    groups = [list(own) for _, own in groupby(rows, key=lambda row: row.name)]
    return [replace(row, span=0 if place else len(own)) for own in groups for place, row in enumerate(own)]


def _named(entry: Record) -> str:
    """Name of a subset at a level."""
    level = f"{entry['level']:g}"
    return f"{entry['subset']}, {level}" if entry["subset"] else level


# Table I: a row per axis


def _by_axis(claim: Claim, verdict: Judged) -> list[Row]:
    rows: list[Row] = []
    for claimed in claim.rows:
        axis, told = claimed.axis, _claimed(claim, claimed)
        if not axis:
            rows.append(replace(_average(claimed.name, claim.axes, verdict), claimed=told))
            continue
        parts = list(dict.fromkeys(entry["subset"] for entry in verdict.levels(axis)))
        parts = parts if len(parts) > 1 else []
        whole = replace(_whole(claimed.name, axis, verdict), claimed=told, whole=False, part="mean" if parts else "")
        own = [_level(claimed.name, part, axis, verdict.levels(axis, part), verdict) for part in parts]
        rows += [whole, *own]
    return rows


def _average(name: str, axes: tuple[str, ...], verdict: Judged) -> Row:
    """Mean over axes, which the verdict does not judge; only where all of them were measured on every method."""
    measures = [verdict.measure(axis) for axis in axes]
    means = [[one.get("methods", {}).get(method, {}).get("mean") for one in measures] for method in verdict.columns]
    effects = [entry["effect"] for entry in verdict.entries(axes, [verdict.baseline])]
    difference = words.effect(measures[0], fmean(effects)) if len(effects) == len(axes) else words.NONE
    cells = tuple(words.axis_value(measures[0], None if None in own else fmean(own)) for own in means)
    return Row(name, cells, difference=difference, whole=True)


# Tables II to V: a row per level or part, and what was judged below


def _table(claim: Claim, axis: str, verdict: Judged) -> list[Row]:
    entries = [entry for entry in verdict.levels(axis) if not entry["subset"].startswith(HOME)]
    others = list(entries)
    rows: list[Row] = []
    for claimed in claim.rows:
        matching = [entry for entry in entries if _matches(claimed, entry)]
        others = [entry for entry in others if entry not in matching]
        own = [_level(claimed.name, _part(claimed, entry, entries), axis, [entry], verdict) for entry in matching]
        own = own or [Row(claimed.name, (words.NONE,) * len(verdict.methods))]
        rows += [replace(own[0], claimed=_claimed(claim, claimed)), *own[1:]]
    rows += [_level(_named(entry), "", axis, [entry], verdict) for entry in others]
    return [*rows, _whole(WHOLE, axis, verdict)]


def _matches(claimed: ClaimedRow, entry: Record) -> bool:
    if claimed.level is not None:
        return abs(float(entry["level"]) - claimed.level) < 1e-9
    return bool(entry["subset"] == claimed.subset)


def _part(claimed: ClaimedRow, entry: Record, entries: list[Record]) -> str:
    """What tells entries of one claimed row apart."""
    if claimed.level is not None:
        return str(entry["subset"])
    several = len({each["level"] for each in entries}) > 1
    return f"{entry['level']:g}" if several else ""


def _forgetting(axis: str, verdict: Judged) -> list[Row]:
    """What adapting to a domain costs on the home text: its level at each number of steps minus that at none."""
    homes = [entry for entry in verdict.levels(axis) if entry["subset"].startswith(HOME)]
    before = {entry["subset"]: entry["methods"] for entry in homes if entry["level"] == 0}
    measure, rows = verdict.measure(axis), []
    for entry in homes:
        start = before.get(entry["subset"])
        if entry["level"] == 0 or start is None:
            continue
        lost = {name: own["mean"] - start[name]["mean"] for name, own in entry["methods"].items() if name in start}
        both = verdict.subject in lost and verdict.baseline in lost
        difference = words.effect(measure, lost[verdict.subject] - lost[verdict.baseline]) if both else words.NONE
        name = f"Bits more on the home text {entry['subset'].removeprefix('home ')}"
        cells = tuple(words.axis_value(measure, lost.get(method)) for method in verdict.columns)
        rows.append(Row(name, cells, f"{entry['level']:g}", difference=difference))
    return rows


# Figures: what else sums them up


def _costs(verdict: Judged) -> list[Row]:
    costs = verdict.verdict.get("cost_per_correct") or {}
    rows = []
    for key, name, form in (("seconds", "Time", ",.3f"), ("tokens", "Tokens", ",.0f")):
        unit = "s" if key == "seconds" else "tokens"
        numbers = [(costs.get(method) or {}).get(key) for method in verdict.columns]
        cells = tuple(words.NONE if number is None else f"{number:{form}} {unit}" for number in numbers)
        if any(number is not None for number in numbers):
            rows.append(Row(f"{name} per right answer", cells))
    return rows


def _last_rewrite(verdict: Judged) -> list[Row]:
    entries = [entry for entry in verdict.levels("drift") if not entry["subset"].endswith(" by MiniLM")]
    last = max((entry["level"] for entry in entries), default=0)
    final = [entry for entry in entries if entry["level"] == last]
    return [_level(f"After {last:g} rewrites", "", "drift", final, verdict)] if final else []


def _wrong(verdict: Judged) -> list[Row]:
    """Wrong steps in all; the difference is that of the accuracies, turned round and summed up."""
    rows = []
    for mode, name in (("free", "own answers"), ("forced", "right answers given")):
        entries = verdict.levels("steps", mode)
        if not entries:
            continue
        sums = [wrong_steps(entries, method)[-1:] for method in verdict.columns]
        cells = tuple(f"{own[0]:.2f} steps" if own else words.NONE for own in sums)
        chances = [entry["chance"] for entry in entries]
        guess = words.NONE if None in chances else f"{sum(1 - chance for chance in chances):.2f} steps"
        both = sums[0] and sums[-1]
        difference = f"{words.signed(sums[-1][0] - sums[0][0], 2)} steps" if both else words.NONE
        rows.append(Row(f"Wrong steps of all, {name}", cells, "", guess, difference))
    return rows


def _convergence(verdict: Judged) -> list[Row]:
    """Steps to the target: mean, median, spread, and who got there."""
    methods = verdict.measure(STEPS).get("methods", {})
    steps = [list(methods.get(name, {}).get("values", {}).values()) for name in verdict.columns]
    reached = [[number for number in own if number is not None] for own in steps]
    survival = (verdict.verdict.get("survival") or {}).get("methods", {})
    ranges = (f"{min(own):,.0f} to {max(own):,.0f}" if own else words.NONE for own in reached)
    counts = (f"{len(known)} of {len(own)}" for known, own in zip(reached, steps, strict=True))
    medians = Row("Median steps (Kaplan-Meier)", tuple(_median(survival.get(name)) for name in verdict.columns))
    return [
        replace(_whole("Mean steps", STEPS, verdict), cells=tuple(map(words.steps, steps))),
        *([medians] if survival else []),
        Row("Fewest and most steps of those that reached it", tuple(ranges)),
        Row("Runs that reached the target", tuple(counts)),
    ]


def _median(own: Record | None) -> str:
    if own is None:
        return words.NONE
    return "not reached" if own["median"] is None else f"{own['median']:,.0f}"


# Rows


def _whole(name: str, axis: str, verdict: Judged) -> Row:
    """The measure of an axis as the verdict has it, with its word."""
    measure, entry = verdict.measure(axis), verdict.entry(axis, verdict.baseline)
    own, chances = measure.get("methods", {}), [entry["chance"] for entry in verdict.levels(axis)]
    guess = words.axis_value(measure, fmean(chances)) if chances and None not in chances else words.NONE
    cells = tuple(words.axis_value(measure, own.get(method, {}).get("mean")) for method in verdict.columns)
    row = Row(name, cells, "", guess, whole=True)
    if entry is None:
        return row
    effect, spread = words.effect(measure, entry["effect"]), words.spread(measure, entry)
    return replace(row, difference=effect, interval=spread, word=entry["word"])


def _level(name: str, part: str, axis: str, entries: list[Record], verdict: Judged) -> Row:
    """Some levels of an axis, with equal weights; an interval only where there is a single one."""
    measure, pair = verdict.measure(axis), [verdict.subject, verdict.baseline]

    def mean(method: str) -> str:
        own = [entry["methods"][method]["mean"] for entry in entries if method in entry["methods"]]
        return words.axis_value(measure, fmean(own) if len(own) == len(entries) else None)

    row = Row(name, tuple(map(mean, verdict.columns)), part, _guess(axis, entries, verdict))
    found = [each for entry in entries for each in entry["differences"] if each["pair"] == pair]
    if len(found) < len(entries):
        return row
    spread = words.spread(measure, _as_judged(found[0])) if len(found) == 1 else words.NONE
    return replace(row, difference=words.effect(measure, fmean(each["mean"] for each in found)), interval=spread)


def _as_judged(difference: Record) -> dict[str, Any]:
    """The spread of a level as a pair of the verdict has it."""
    ends = [difference.get("low"), difference.get("high")]
    return {"interval": None if None in ends else ends, "points": difference.get("points", [])}


def _guess(axis: str, entries: list[Record], verdict: Judged) -> str:
    """Chance, or where guessing means nothing the control that knows how often each byte comes."""
    measure, chances = verdict.measure(axis), [entry["chance"] for entry in entries]
    if None not in chances:
        return words.axis_value(measure, fmean(chances))
    subsets = {f"bytes of {entry['subset']}" for entry in entries}
    known = [entry["methods"] for entry in verdict.controls(axis) if entry["subset"] in subsets]
    return words.axis_value(measure, next(iter(known[0].values()))["mean"]) if known else words.NONE


def _claimed(claim: Claim, row: ClaimedRow) -> str:
    digits = 1 if claim.claimed_unit == "%" else 2
    baseline, cegm = row.claimed
    gain = words.signed(cegm - baseline, digits)
    return f"{baseline:.{digits}f} \N{RIGHTWARDS ARROW} {cegm:.{digits}f} ({gain})"

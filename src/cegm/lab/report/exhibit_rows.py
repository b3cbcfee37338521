"""The rows of the paper's tables and figures: every level, the whole as it was judged, and what sums it up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean

from cegm.lab.report import words
from cegm.lab.report.claims import Claim, ClaimedRow
from cegm.lab.report.folder import Record
from cegm.lab.report.judged import Judged
from cegm.lab.report.levels import wrong_steps

STEPS = "steps_to_target"
WHOLE = "Mean, as judged"


@dataclass(frozen=True)
class Row:
    """A row of an exhibit.

    Attributes:
        name: First column.
        part: Second column; empty for none.
        guess: Chance, or what the control of the row gets.
        cells: A value per method, the baseline first and the subject last.
        difference: Subject minus baseline.
        interval: Its 95 % interval, or the difference of each seed.
        word: Word of the verdict; empty where nothing was judged.
        claimed: What the paper claims, from baseline to CEGM, and the gain; empty for none.
        whole: Whether it sums up the exhibit.
        span: Rows that share the name and the claim; 0 for those below the first.
    """

    name: str
    part: str
    guess: str
    cells: tuple[str, ...]
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
        return _by_axis(claim, verdict), []
    axis = claim.axes[0]
    if not claim.rows:
        measured = [_whole(WHOLE, axis, verdict), *_special(axis, verdict)]
        return measured, [_level(_named(entry), "", axis, [entry], verdict) for entry in _all(axis, verdict)]
    return _table(claim, axis, verdict)


def _all(axis: str, verdict: Judged) -> list[Record]:
    return [*verdict.levels(axis), *verdict.controls(axis)]


def _named(entry: Record) -> str:
    """Name of a subset at a level."""
    level = f"{entry['level']:g}"
    return f"{entry['subset']}, {level}" if entry["subset"] else level


# Table I: a row per axis


def _by_axis(claim: Claim, verdict: Judged) -> list[Row]:
    rows: list[Row] = []
    for claimed in claim.rows:
        if not claimed.axis:
            rows.append(replace(_average(claimed.name, claim.axes, verdict), claimed=_claimed(claim, claimed)))
            continue
        whole = replace(_whole(claimed.name, claimed.axis, verdict), claimed=_claimed(claim, claimed), whole=False)
        parts = list(dict.fromkeys(entry["subset"] for entry in verdict.levels(claimed.axis)))
        own = [
            _level(claimed.name, part, claimed.axis, _of(verdict, claimed.axis, part), verdict)
            for part in (parts if len(parts) > 1 else ())
        ]
        rows += [replace(whole, part="mean" if own else ""), *own]
    return rows


def _of(verdict: Judged, axis: str, subset: str) -> list[Record]:
    return [entry for entry in verdict.levels(axis) if entry["subset"] == subset]


def _average(name: str, axes: Iterable[str], verdict: Judged) -> Row:
    """Mean over axes, which the verdict does not judge; only where all of them were measured on every method."""
    measures = [verdict.measure(axis) for axis in axes]

    def over(method: str) -> float | None:
        means = [measure.get("methods", {}).get(method, {}).get("mean") for measure in measures]
        return None if None in means else fmean(means)

    values = {method: over(method) for method in verdict.methods}
    entries = [verdict.entry(axis, verdict.baseline) for axis in axes]
    effects = [entry["effect"] for entry in entries if entry is not None]
    complete = len(effects) == len(measures)
    return Row(
        name,
        "",
        words.NONE,
        tuple(words.axis_value(measures[0], values[method]) for method in order(verdict)),
        words.effect(measures[0], fmean(effects)) if complete else words.NONE,
        whole=True,
    )


# Tables II to V: a row per level or part, and what was judged below


def _table(claim: Claim, axis: str, verdict: Judged) -> tuple[list[Row], list[Row]]:
    entries = [entry for entry in verdict.levels(axis) if not entry["subset"].startswith("home after ")]
    used: list[int] = []
    rows: list[Row] = []
    for claimed in claim.rows:
        matching = [entry for entry in entries if _matches(claimed, entry)]
        used += map(id, matching)
        parts = [_level(claimed.name, _part(claimed, entry, entries), axis, [entry], verdict) for entry in matching]
        parts = parts or [Row(claimed.name, "", words.NONE, (words.NONE,) * len(verdict.methods))]
        rows += [replace(parts[0], claimed=_claimed(claim, claimed)), *parts[1:]]
    others = [entry for entry in entries if id(entry) not in used]
    rows += [_level(_named(entry), "", axis, [entry], verdict) for entry in others]
    return [*rows, _whole(WHOLE, axis, verdict)], _forgetting(axis, verdict)


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
    homes = [entry for entry in verdict.levels(axis) if entry["subset"].startswith("home after ")]
    before = {entry["subset"]: entry for entry in homes if entry["level"] == 0}
    measure, rows = verdict.measure(axis), []
    for entry in homes:
        start = before.get(entry["subset"])
        if entry["level"] == 0 or start is None:
            continue
        lost = {
            method: own["mean"] - start["methods"][method]["mean"]
            for method, own in entry["methods"].items()
            if method in start["methods"]
        }
        cells = tuple(words.axis_value(measure, lost.get(method)) for method in order(verdict))
        both = verdict.subject in lost and verdict.baseline in lost
        difference = words.effect(measure, lost[verdict.subject] - lost[verdict.baseline]) if both else words.NONE
        name = f"Bits more on the home text {entry['subset'].removeprefix('home ')}"
        rows.append(Row(name, f"{entry['level']:g}", words.NONE, cells, difference))
    return rows


# Figures: what was judged, and what else sums them up


def _special(axis: str, verdict: Judged) -> list[Row]:
    return {"efficiency": _costs, "drift": _last_rewrite, "steps": _wrong}.get(axis, _nothing)(verdict)


def _nothing(_: Judged) -> list[Row]:
    return []


def _costs(verdict: Judged) -> list[Row]:
    costs = verdict.verdict.get("cost_per_correct") or {}
    rows = []
    for key, name, unit, digits in (("seconds", "Time", "s", 3), ("tokens", "Tokens", "tokens", 0)):
        numbers = [(costs.get(method) or {}).get(key) for method in order(verdict)]
        if any(number is not None for number in numbers):
            cells = tuple(words.NONE if number is None else f"{number:,.{digits}f} {unit}" for number in numbers)
            rows.append(Row(f"{name} per right answer", "", words.NONE, cells))
    return rows


def _last_rewrite(verdict: Judged) -> list[Row]:
    entries = [entry for entry in verdict.levels("drift") if not entry["subset"].endswith(" by MiniLM")]
    last = max((entry["level"] for entry in entries), default=0)
    final = [entry for entry in entries if entry["level"] == last]
    return [_level(f"After {last:g} rewrites", "", "drift", final, verdict)] if final else []


def _wrong(verdict: Judged) -> list[Row]:
    """Wrong steps in all; the difference is that of the accuracies, turned round and summed up."""
    rows = []
    for mode, name in (
        ("free", "Wrong steps of all, own answers"),
        ("forced", "Wrong steps of all, right answers given"),
    ):
        entries = _of(verdict, "steps", mode)
        sums = {method: wrong_steps(entries, method) for method in verdict.methods}
        cells = tuple(f"{sums[method][-1]:.2f} steps" if sums[method] else words.NONE for method in order(verdict))
        if entries:
            chances = [entry["chance"] for entry in entries]
            guess = words.NONE if None in chances else f"{sum(1 - chance for chance in chances):.2f} steps"
            rows.append(Row(name, "", guess, cells, _less(sums, verdict)))
    return rows


def _less(sums: dict[str, list[float]], verdict: Judged) -> str:
    own, other = sums[verdict.subject], sums[verdict.baseline]
    return f"{words.signed(own[-1] - other[-1], 2)} steps" if own and other else words.NONE


def _convergence(verdict: Judged) -> list[Row]:
    """Steps to the target: mean, median, spread, and who got there."""
    values = {method: list(own["values"].values()) for method, own in verdict.measure(STEPS).get("methods", {}).items()}
    cells = tuple(words.steps(values.get(method, [])) for method in order(verdict))
    rows = [replace(_whole("Mean steps", STEPS, verdict), cells=cells)]
    survival = (verdict.verdict.get("survival") or {}).get("methods", {})
    if survival:
        cells = tuple(_median(survival.get(method)) for method in order(verdict))
        rows.append(Row("Median steps (Kaplan-Meier)", "", words.NONE, cells))
    extremes = tuple(_range(values.get(method, [])) for method in order(verdict))
    rows.append(Row("Fewest and most steps of those that reached it", "", words.NONE, extremes))
    reached = tuple(_reached(values.get(method, [])) for method in order(verdict))
    return [*rows, Row("Runs that reached the target", "", words.NONE, reached)]


def _median(own: Record | None) -> str:
    if own is None:
        return words.NONE
    return "not reached" if own["median"] is None else f"{own['median']:,.0f}"


def _range(steps: list[float | None]) -> str:
    known = [number for number in steps if number is not None]
    return f"{min(known):,.0f} to {max(known):,.0f}" if known else words.NONE


def _reached(steps: list[float | None]) -> str:
    return f"{sum(number is not None for number in steps)} of {len(steps)}"


# Rows


def order(verdict: Judged) -> list[str]:
    """Methods as columns: the baseline first, the subject last, as in the paper."""
    return list(reversed(verdict.methods))


def _whole(name: str, axis: str, verdict: Judged) -> Row:
    """The measure of an axis as the verdict has it, with its word."""
    measure, entry = verdict.measure(axis), verdict.entry(axis, verdict.baseline)
    own = measure.get("methods", {})
    chances = [entry["chance"] for entry in verdict.levels(axis)]
    known = bool(chances) and None not in chances
    return Row(
        name,
        "",
        words.axis_value(measure, fmean(chances)) if known else words.NONE,
        tuple(words.axis_value(measure, own.get(method, {}).get("mean")) for method in order(verdict)),
        words.NONE if entry is None else words.effect(measure, entry["effect"]),
        words.NONE if entry is None else words.spread(measure, entry),
        "" if entry is None else entry["word"],
        whole=True,
    )


def _level(name: str, part: str, axis: str, entries: list[Record], verdict: Judged) -> Row:
    """Some levels of an axis, with equal weights; an interval only where there is a single one."""
    measure = verdict.measure(axis)

    def mean(method: str) -> str:
        own = [entry["methods"][method]["mean"] for entry in entries if method in entry["methods"]]
        return words.axis_value(measure, fmean(own) if len(own) == len(entries) else None)

    found = [_difference(entry, verdict) for entry in entries]
    known = [each for each in found if each is not None]
    spread = words.spread(measure, _as_judged(known[0])) if len(known) == len(entries) == 1 else words.NONE
    return Row(
        name,
        part,
        _guess(axis, entries, verdict),
        tuple(mean(method) for method in order(verdict)),
        words.effect(measure, fmean(each["mean"] for each in known)) if len(known) == len(entries) else words.NONE,
        spread,
    )


def _as_judged(difference: Record) -> Record:
    """The spread of a level as a pair of the verdict has it."""
    ends = [difference.get("low"), difference.get("high")]
    return {"interval": None if None in ends else ends, "points": difference.get("points", [])}


def _difference(entry: Record, verdict: Judged) -> Record | None:
    pair = [verdict.subject, verdict.baseline]
    return next((each for each in entry["differences"] if each["pair"] == pair), None)


def _guess(axis: str, entries: list[Record], verdict: Judged) -> str:
    """Chance, or where guessing means nothing the control that knows how often each byte comes."""
    measure = verdict.measure(axis)
    chances = [entry["chance"] for entry in entries]
    if None not in chances:
        return words.axis_value(measure, fmean(chances))
    subsets = {f"bytes of {entry['subset']}" for entry in entries}
    known = [entry for entry in verdict.controls(axis) if entry["subset"] in subsets]
    return words.axis_value(measure, next(iter(known[0]["methods"].values()))["mean"]) if known else words.NONE


def _claimed(claim: Claim, row: ClaimedRow) -> str:
    digits = 1 if claim.claimed_unit == "%" else 2
    baseline, cegm = row.claimed
    gain = words.signed(cegm - baseline, digits)
    return f"{baseline:.{digits}f} \N{RIGHTWARDS ARROW} {cegm:.{digits}f} ({gain})"


def spanned(rows: list[Row]) -> list[Row]:
    """Rows of one name in a row share its cell."""
    found: list[Row] = []
    for row in rows:
        first = next((place for place in range(len(found) - 1, -1, -1) if found[place].span), None)
        if first is not None and found[first].name == row.name:
            found[first] = replace(found[first], span=found[first].span + 1)
            row = replace(row, span=0)
        found.append(row)
    return found

"""The paper's tables I to V and figures 2 to 6 in its own layout: what was measured, the verdict, and what the paper claims."""

from __future__ import annotations

from dataclasses import dataclass, field

from cegm.lab.report import style, words
from cegm.lab.report.claims import Claim, claims
from cegm.lab.report.exhibit_figures import drawn
from cegm.lab.report.exhibit_rows import STEPS, Row, order, rows_of, spanned
from cegm.lab.report.figures import Figure
from cegm.lab.report.folder import Folder, Record
from cegm.lab.report.judged import Judged, judged, reason, warned


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of the paper with what was measured in its place.

    Attributes:
        claim: What the paper shows and says.
        columns: Headings of the columns that name a row.
        unit: Unit of the measured values.
        rows: Its table.
        details: Rows that are folded away.
        details_title: What they are.
        rivals: What was found against every other method, a sentence each.
        notes: What was left out.
        figures: Its charts.
    """

    claim: Claim
    columns: tuple[str, str]
    unit: str
    rows: list[Row]
    details: list[Row] = field(default_factory=list)
    details_title: str = ""
    rivals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def exhibits(folder: Folder) -> tuple[list[Exhibit], list[tuple[Claim, str]]]:
    """What can be shown, and the rest with the reason why not; nothing of either without a verdict."""
    verdict = judged(folder)
    found: list[Exhibit] = []
    missing: list[tuple[Claim, str]] = []
    if verdict is None:
        return found, missing
    for claim in claims():
        if any(verdict.taken(name) for name in claim.axes or (STEPS,)):
            found.append(_exhibit(claim, folder, verdict))
        else:
            told = dict.fromkeys(reason(folder.runs, axis) for axis in claim.axes)
            missing.append((claim, "; ".join(told) or "AdamW has no finished run that sets a target"))
    return found, missing


def columns(folder: Folder) -> list[str]:
    """Names of the methods in the order of `Row.cells`; nothing without a verdict."""
    verdict = judged(folder)
    return [style.name(method) for method in order(verdict)] if verdict else []


def _exhibit(claim: Claim, folder: Folder, verdict: Judged) -> Exhibit:
    rows, details = rows_of(claim, verdict)
    rows, details = spanned(rows), spanned(details)
    part = claim.columns[1] or ("Part" if any(row.part for row in [*rows, *details]) else "")
    notes = [text for axis in claim.axes for text in warned(folder.runs, axis)]
    notes += [f"{axis} was not measured: {reason(folder.runs, axis)}" for axis in claim.axes if not verdict.taken(axis)]
    return Exhibit(
        claim,
        (claim.columns[0], part),
        words.unit(_first_measure(claim, verdict)),
        rows,
        details,
        "What adapting costs on the home text" if claim.rows else "Every level in numbers",
        _rivals(claim, verdict),
        notes,
        drawn(claim, folder, verdict),
    )


def _first_measure(claim: Claim, verdict: Judged) -> Record:
    return next(verdict.measure(name) for name in claim.axes or (STEPS,) if verdict.taken(name))


def _spread(measure: Record, entry: Record) -> str:
    shown = words.spread(measure, entry)
    return "" if shown == words.NONE else f" ({'' if entry['interval'] else 'by seed '}{shown})"


def _rivals(claim: Claim, verdict: Judged) -> list[str]:
    """The subject against every method but the baseline."""
    told = []
    for other in verdict.methods[1:-1]:
        parts = []
        for name in claim.axes or (STEPS,):
            entry, measure = verdict.entry(name, other), verdict.measure(name)
            if entry is not None:
                topic = f"{measure['title'].lower()} " if len(claim.axes) > 1 else ""
                parts.append(f"{topic}{words.difference(measure, entry)}{_spread(measure, entry)}, {entry['word']}")
        if parts:
            told.append(f"{style.name(verdict.subject)} minus {style.name(other)}: {'; '.join(parts)}.")
    return told

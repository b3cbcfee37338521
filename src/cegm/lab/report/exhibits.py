"""The paper's tables I to V and figures 2 to 6 in its own layout: what was measured, the verdict, and what the paper claims."""

from __future__ import annotations

from dataclasses import dataclass

from cegm.lab.report import words
from cegm.lab.report.claims import Claim, claims
from cegm.lab.report.exhibit_rows import STEPS, Row, rows_of
from cegm.lab.report.figures import Figure, of_claim
from cegm.lab.report.judged import Judged, judged, reason, warned
from cegm.lab.report.runs import Folder
from cegm.lab.report.words import told


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of the paper with what was measured in its place.

    Attributes:
        claim: What the paper shows and says.
        columns: Headings of the columns that name a row.
        unit: Unit of the measured values.
        rows: Its table.
        details: Rows that are folded away.
        rivals: What was found against every other method, a sentence each.
        notes: What was left out.
        figures: Its charts.
    """

    claim: Claim
    columns: tuple[str, str]
    unit: str
    rows: list[Row]
    details: list[Row]
    rivals: list[str]
    notes: list[str]
    figures: list[Figure]


def exhibits(folder: Folder) -> tuple[list[Exhibit], list[tuple[Claim, str]]]:
    """What can be shown, and the rest with the reason why not; nothing of either without a verdict."""
    verdict = judged(folder)
    found: list[Exhibit] = []
    missing: list[tuple[Claim, str]] = []
    if verdict is None:
        return found, missing
    for claim in claims():
        taken = [name for name in claim.axes or (STEPS,) if verdict.taken(name)]
        if taken:
            found.append(_exhibit(claim, taken, folder, verdict))
        else:
            reasons = dict.fromkeys(reason(folder.runs, axis) for axis in claim.axes)
            missing.append((claim, "; ".join(reasons) or told("sentences", "no_target")))
    return found, missing


def columns(folder: Folder) -> list[str]:
    """Names of the methods in the order of `Row.cells`; nothing without a verdict."""
    verdict = judged(folder)
    return words.names(verdict.columns) if verdict else []


def _exhibit(claim: Claim, taken: list[str], folder: Folder, verdict: Judged) -> Exhibit:
    rows, details = rows_of(claim, verdict)
    part = claim.columns[1] or ("Part" if any(row.part for row in [*rows, *details]) else "")
    left = {axis: reason(folder.runs, axis) for axis in claim.axes if axis not in taken}
    notes = [text for axis in claim.axes for text in warned(folder.runs, axis)]
    notes += [told("sentences", "not_taken", axis=axis, reason=why) for axis, why in left.items()]
    unit = words.unit(verdict.measure(taken[0]))
    rivals, figures = _rivals(claim, verdict), of_claim(claim, folder, verdict)
    return Exhibit(claim, (claim.columns[0], part), unit, rows, details, rivals, notes, figures)


def _rivals(claim: Claim, verdict: Judged) -> list[str]:
    """The subject against every method but the baseline."""
    sentences = []
    for other in verdict.methods[1:-1]:
        found = [
            (
                measure["title"].lower() if len(claim.axes) > 1 else "",
                words.difference(measure, entry),
                words.spread(measure, entry),
                entry,
            )
            for measure in map(verdict.measure, claim.axes or (STEPS,))
            if measure and (entry := verdict.entry(measure["name"], other)) is not None
        ]
        names = words.names([verdict.subject, other])
        sentences += [told("sentences", "rival", names=names, found=found)] if found else []
    return sentences

"""The charts of the paper's tables and figures, and what the lines in them mean."""

from __future__ import annotations

from dataclasses import replace

from cegm.lab.report import curves, dots, levels
from cegm.lab.report.claims import Claim
from cegm.lab.report.figures import Figure, figure
from cegm.lab.report.folder import Folder, Record
from cegm.lab.report.judged import Judged

BANDS = "Lines are means over seeds, bands reach from the lowest seed to the highest."
LEVELS = {
    "efficiency": ("Right answers by depth", "links of the chain, supporting facts, or objects", "right answers"),
    "drift": ("Similarity by rewrites", "rewrites", "similarity to the first text"),
    "noise": ("Right answers by noise", "altered words", "right answers"),
    "complexity": ("Words guessed first by depth", "depth of the sentence", "words guessed first"),
}
"""Title of a chart and of both its axes, by axis of the paper."""


def drawn(claim: Claim, folder: Folder, verdict: Judged) -> list[Figure]:
    """Charts of one table or figure of the paper; a single one has the width for itself."""
    found = _charts(claim, folder, verdict)
    return [replace(found[0], wide=True)] if len(found) == 1 else found


def _charts(claim: Claim, folder: Folder, verdict: Judged) -> list[Figure]:
    if not claim.axes:
        return _convergence(folder, verdict)
    axis = claim.axes[0]
    if axis == "retention":
        return retention(folder)
    if axis == "steps":
        return _errors(verdict)
    return _by_level(axis, verdict) if axis in LEVELS else []


def retention(folder: Folder) -> list[Figure]:
    """Recall by length, from the results of the runs."""
    meaning = f"Share of questions answered rightly. {BANDS} The dashed line is guessing."
    found = figure("Right answers by length", meaning, curves.retention(folder))
    meaning = (
        "How far the right answer is ahead of the best wrong one, in log probability; above the dashed line it wins."
    )
    return found + figure("Margin of the right answer", meaning, curves.retention(folder, "score"))


def _by_level(axis: str, verdict: Judged) -> list[Figure]:
    """A chart per part of the axis that has levels."""
    unit, (title, x_title, y_title) = verdict.measure(axis)["unit"], LEVELS[axis]
    entries, controls = verdict.levels(axis), verdict.controls(axis)
    parts = list(dict.fromkeys(entry["subset"] for entry in entries))
    figures: list[Figure] = []
    for part in parts:
        own = [entry for entry in entries if entry["subset"] == part]
        chart = levels.by_level(own, _short(controls, part), verdict.methods, x_title, y_title, unit)
        meaning = BANDS + (" Dashed: what answers without a model." if _dashed(own, controls) else "")
        figures += figure(f"{title}: {part}" if len(parts) > 1 else title, meaning, chart)
    return figures


def _dashed(entries: list[Record], controls: list[Record]) -> bool:
    return bool(controls) or any(entry["chance"] is not None for entry in entries)


def _short(controls: list[Record], part: str) -> list[Record]:
    """Controls of a part, without its name; those that name no part belong to all."""
    named = [entry for entry in controls if part and entry["subset"].endswith(f" {part}")]
    return [{**entry, "subset": entry["subset"].removesuffix(f" {part}")} for entry in named or controls]


def _convergence(folder: Folder, verdict: Judged) -> list[Figure]:
    target = verdict.verdict["target_loss"]
    if target is None:
        return []
    survival = verdict.verdict.get("survival")
    shares = levels.convergence(survival, verdict.methods) if survival else None
    meaning = f"A run is there at its first evaluation at or below {target:.4f} nats per token. Further left is better."
    found = figure("Runs that reached the target, by step", meaning, shares)
    meaning = "One mark per seed. A cross is a seed that never got there, drawn at its last step."
    return found + figure("Steps needed, every seed", meaning, dots.steps_to_target(folder), 260 if found else 220)


def _errors(verdict: Judged) -> list[Figure]:
    found: list[Figure] = []
    for mode, title in (
        ("free", "Going on from its own answers"),
        ("forced", "Going on from the right answers"),
    ):
        entries = [entry for entry in verdict.levels("steps") if entry["subset"] == mode]
        implied = "if an error is never made good" if mode == "free" else "if every step goes wrong on its own"
        meaning = f"Lower is better. Thin: what accuracy at the first step implies {implied}. Dashed: guessing."
        found += figure(title, meaning, levels.errors(entries, verdict.methods, carried=mode == "free"))
    return found

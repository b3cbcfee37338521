"""Which sentences a verdict and the reasons that runs give allow; `sentences.txt.j2` has their words.

No word goes beyond that of the verdict, and two words that differ ("better" here, "no evidence" there) are never called a difference
that was shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cegm.lab.baselines import METHODS, SUBJECT, ordered
from cegm.lab.report import changes, front_chart, style, words
from cegm.lab.report.claims import claims
from cegm.lab.report.judged import LOSS, Judged, judged, reason, warned
from cegm.lab.report.runs import Folder, Record
from cegm.lab.report.words import told

LOSSES = (LOSS, "equal_seconds", "steps_to_target")
REACH = ("retention", "noise", "domains")
"""Axes on which context should help most, if it carries what the paper says."""

CONTROLS = [name for name in reversed(METHODS) if METHODS[name].without_context]
"""Methods that show what CEGM is without contexts, the closest first."""

Kind = Literal["front", "loss", "part", "better", "worse", "open", "cost", "warning"]


@dataclass(frozen=True)
class Sentence:
    """A statement and where it belongs."""

    kind: Kind
    text: str


def headline(folder: Folder) -> str:
    """The answer to the main question in one sentence."""
    if not folder.is_comparison:
        return told("sentences", "alone", run=folder.runs[0])
    verdict = judged(folder)
    if verdict is None:
        return told("sentences", "unjudged")
    if verdict.parts:
        return changes.headline(verdict)
    if folder.front:
        return front_chart.headline(folder.front)
    others = {word: words.names(own) for word, own in verdict.by_word(LOSS).items()}
    seeds = _screening_seeds(verdict, verdict.entries([LOSS]))
    return words.begun(told("sentences", "headline", verdict=verdict, seeds=seeds, others=others))


def sentences(folder: Folder) -> list[Sentence]:
    """Loss and time, the axes that came out better, worse, and open, then costs and warnings; nothing without a verdict."""
    verdict = judged(folder)
    if verdict is None:
        return []
    if verdict.parts:
        found = [Sentence("part", text) for text in changes.answers(verdict)]
        return [*found, _sentence("warning", "not_tuned"), _sentence("warning", "chosen"), *_warnings(verdict.verdict)]
    if folder.front:
        fronts = [Sentence("front", text) for text in front_chart.sentences(folder.front)]
        return fronts + _costs(folder, verdict) + _unmeasured(folder) + _notes(folder) + _warnings(verdict.verdict)[1:]
    found = _losses(verdict) + _axes(verdict) + _reach(verdict) + _missing(folder, verdict)
    return found + _costs(folder, verdict) + _unmeasured(folder) + _notes(folder) + _warnings(verdict.verdict)


def _sentence(kind: Kind, name: str, **values: Any) -> Sentence:
    return Sentence(kind, words.begun(told("sentences", name, **values)))


def _screening_seeds(verdict: Judged, entries: list[Record]) -> tuple[int, int] | None:
    """Fewest and most seeds of some pairs; None where each has enough for a claim."""
    seeds = [entry["n"] for entry in entries]
    return (min(seeds), max(seeds)) if verdict.is_screening(entries) else None


def _losses(verdict: Judged) -> list[Sentence]:
    """One sentence on loss after equal steps, loss in equal time, and steps to a target."""
    if len(verdict.methods) < 2:
        return []
    measures = {name: _with_details(verdict, name) for name in LOSSES}
    seeds = _screening_seeds(verdict, verdict.entries(LOSSES))
    return [_sentence("loss", "losses", subject=style.name(verdict.subject), seeds=seeds, measures=measures)]


def _with_details(verdict: Judged, name: str) -> dict[str, list[str]]:
    """Other methods by word, each with the size of the difference and how sure it is."""

    def detailed(other: str) -> str:
        entry = verdict.entry(name, other)
        return style.name(other) + ("" if entry is None else f" ({verdict.detail(name, entry)})")

    return {word: list(map(detailed, others)) for word, others in verdict.by_word(name).items()}


def _axes(verdict: Judged) -> list[Sentence]:
    """A sentence each for the axes on which the subject came out better, worse, and neither."""
    others = verdict.methods[1:]
    if others and not verdict.axes:
        return [_sentence("open", "no_axis")]
    against = [other for other in others if any(verdict.entry(axis, other) for axis in verdict.axes)]
    kinds: tuple[tuple[Kind, str], ...] = (("better", "better"), ("worse", "worse"), ("open", "no evidence"))
    return [_axes_of(verdict, kind, word, against) for kind, word in kinds if against and _is_told(verdict, word)]


def _is_told(verdict: Judged, word: str) -> bool:
    """That no axis came out better or worse is told; that none came out open goes without saying."""
    return word != "no evidence" or any(verdict.by_word(axis)[word] for axis in verdict.axes)


def _axes_of(verdict: Judged, kind: Kind, word: str, against: list[str]) -> Sentence:
    """The axes that got a word, by the methods against which they got it."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for axis in verdict.axes:
        rivals = tuple(verdict.by_word(axis)[word])
        if rivals:
            groups.setdefault(rivals, []).append(axis)
    named = groups or {tuple(verdict.methods[1:]): verdict.axes}
    entries = [entry for rivals, axes in named.items() for entry in verdict.entries(axes, rivals)]
    topic = _topic if kind == "open" else _topic_with_effects
    return _sentence(
        kind,
        "axes",
        subject=style.name(verdict.subject),
        word=word,
        screening=verdict.is_screening(entries),
        groups=[
            (words.names(rivals), [topic(verdict, axis, rivals) for axis in axes]) for rivals, axes in groups.items()
        ],
        rivals=words.names(against),
    )


def _topic(verdict: Judged, axis: str, _: tuple[str, ...] = ()) -> str:
    """An axis in the middle of a sentence."""
    return str(verdict.measure(axis)["title"]).partition(",")[0].lower()


def _topic_with_effects(verdict: Judged, axis: str, rivals: tuple[str, ...]) -> str:
    """An axis with the size of the effect against each rival."""
    measure = verdict.measure(axis)
    effects = [words.effect(measure, entry["effect"]) for entry in verdict.entries([axis], rivals)]
    return f"{_topic(verdict, axis)} ({words.listed(effects, 'and')} {words.effect_unit(measure)})"


def _reach(verdict: Judged) -> list[Sentence]:
    """Whether context helps where it should reach furthest more than it helps the loss, as far as the words can tell."""
    control = next((method for method in CONTROLS if verdict.entry(LOSS, method)), "")
    loss = verdict.entry(LOSS, control)
    axes = [axis for axis in REACH if verdict.entry(axis, control)]
    if verdict.subject != SUBJECT or loss is None or not axes:
        return []
    found: dict[str, list[str]] = {}
    for axis, entry in zip(axes, verdict.entries(axes, [control]), strict=True):
        found.setdefault(entry["word"], []).append(_topic(verdict, axis))
    names = {"control": style.name(control), "without": METHODS[control].without_context}
    topics = [_topic(verdict, axis) for axis in axes]
    return [_sentence("open", "reach", **names, loss=loss["word"], found=found, topics=topics)]


def _missing(folder: Folder, verdict: Judged) -> list[Sentence]:
    """Axes that were asked for and could not be measured, and why where no table or figure of the paper tells it."""
    asked = {axis for run in folder.runs for axis, state in run.result.get("axes", {}).items() if state.get("reason")}
    names = sorted(axis for axis in asked if not verdict.taken(axis))
    below = {axis for claim in claims() for axis in claim.axes}
    axes = [name if name in below else f"{name} ({reason(folder.runs, name)})" for name in names]
    return [_sentence("open", "missing", axes=axes)] if axes else []


def _costs(folder: Folder, verdict: Judged) -> list[Sentence]:
    """Memory and state beside each other method; of time, only steps in turns give a ratio."""
    found = [
        _sentence("cost", "beside", **costs) for other in verdict.methods[1:] if (costs := _beside(verdict, other))
    ]
    points = [point for point in (folder.overhead or {}).get("points", ()) if "methods" in point]
    if folder.overhead is not None and points:
        reference = folder.overhead["reference"]
        methods = [method for method in ordered(folder.overhead["methods"]) if method != reference]
        found += [_sentence("cost", "steps_in_turns", **_range(points, method, reference)) for method in methods]
    if folder.overhead is None and verdict.entry("step_time", verdict.baseline):
        found.append(_sentence("cost", "untimed"))
    return found


def _beside(verdict: Judged, other: str) -> Record:
    """Factors of memory and state against another method; nothing where neither was measured."""
    ratio = {"effect": "ratio"}
    factors = [
        (name, words.effect(ratio, entry["effect"]), words.spread_named(ratio, entry))
        for name in ("memory", "optimizer_state")
        if (entry := verdict.entry(name, other)) is not None
    ]
    names = {"subject": style.name(verdict.subject), "other": style.name(other)}
    return {**names, "factors": factors} if factors else {}


def _range(points: list[Record], method: str, reference: str) -> Record:
    """The range of a method's step over the reference's."""
    times = [point["methods"][method]["ratio"]["estimate"] for point in points]
    memory = [point["methods"][method]["peak_ratio"] for point in points]
    return {
        **{"method": style.name(method), "reference": style.name(reference), "shapes": len(points)},
        **{"times": (min(times), max(times)), "memory": (min(memory), max(memory))},
        "dearest": points[times.index(max(times))],
    }


def _unmeasured(folder: Folder) -> list[Sentence]:
    """Shapes, and methods with their seeds, that could not be measured, and why."""
    measured = {"no_overhead": folder.overhead, "not_drilled": folder.drill}
    return [
        _sentence("warning", name, point=point)
        for name, found in measured.items()
        for point in (found or {}).get("points", ())
        if "error" in point
    ]


def _notes(folder: Folder) -> list[Sentence]:
    """What was left out of forgetting, and what cards have seen."""
    notes = warned(folder.runs, "forgetting")
    return [_sentence("warning", "forgetting_notes", notes=notes)] if notes else []


def _warnings(verdict: Record) -> list[Sentence]:
    """How much the whole is worth, and which runs and pairs are missing from it."""
    found = [Sentence("warning", verdict["statement"])]
    if verdict["failed"]:
        failed = {"count": len(verdict["failed"]), "planned": verdict["runs"]["planned"]}
        found.append(_sentence("warning", "failed", **failed))
    if verdict["refused"]:
        found.append(_sentence("warning", "refused", count=len(verdict["refused"])))
    return found

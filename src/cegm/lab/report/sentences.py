"""The first screen in plain sentences: what was found, what was not, at what cost, and what to beware of.

Pure functions of `verdict.json` and of the reasons that runs give. No word goes beyond that of the verdict, and two words that differ
("better" here, "no evidence" there) are never called a difference that was shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cegm.lab.baselines import METHODS, SUBJECT
from cegm.lab.report import changes, costs, style, words
from cegm.lab.report.claims import claims
from cegm.lab.report.folder import Folder, Record
from cegm.lab.report.judged import LOSS, Judged, judged, reason
from cegm.lab.report.words import listed

LOSSES = {
    LOSS: (
        "ends with a lower validation loss after equal steps than",
        "ends with a higher validation loss after equal steps than",
        "validation loss after equal steps",
    ),
    "equal_seconds": (
        "has a lower validation loss in equal training time than",
        "has a higher validation loss in equal training time than",
        "validation loss in equal training time",
    ),
    "steps_to_target": (
        "needs fewer steps to AdamW's final loss than",
        "needs more steps to AdamW's final loss than",
        "steps to AdamW's final loss",
    ),
}
"""How each of them is told: better, worse, and what it is about."""

REACH = ("retention", "noise", "domains")
"""Axes on which context should help most, if it carries what the paper says."""

CONTROLS = [name for name in reversed(METHODS) if METHODS[name].without_context]
"""Methods that show what CEGM is without contexts, the closest first."""


@dataclass(frozen=True)
class Sentence:
    """A statement and where it belongs."""

    kind: Literal["loss", "part", "better", "worse", "open", "cost", "warning"]
    text: str


def headline(folder: Folder) -> str:
    """The answer to the main question in one sentence."""
    if not folder.is_comparison:
        run = folder.runs[0]
        state = "finished" if run.status == "finished" else "did not finish"
        return f"One run of {style.name(run.method)} (seed {run.seed}) {state}; there is nothing to compare it with."
    verdict = judged(folder)
    if verdict is None:
        return "This comparison has not been judged yet: it holds no verdict. Its command, given again, judges what is there."
    if verdict.parts:
        return changes.headline(verdict)
    subject = style.name(verdict.subject)
    found = [entry for other in verdict.methods[1:] if (entry := verdict.entry(LOSS, other))]
    if verdict.subject in verdict.failed:
        return f"{subject} cannot be judged: it failed on every seed."
    if not found:
        return f"{subject} cannot be judged: no other method shares a finished, properly paired run with it."
    clauses = []
    for word, verb in (("better", "a lower validation loss than"), ("worse", "a higher validation loss than")):
        others = [style.name(entry["pair"][1]) for entry in found if entry["word"] == word]
        if others:
            clauses.append(f"{verb} {listed(others, 'and')}")
    undecided = [style.name(entry["pair"][1]) for entry in found if entry["word"] == "no evidence"]
    told = [f"{subject} ends with {' and '.join(clauses)}"] if clauses else []
    if undecided:
        told.append(
            f"there is no evidence of a difference in validation loss between {subject} and {listed(undecided, 'or')}"
        )
    if verdict.failed:
        told.append(f"{listed([style.name(method) for method in verdict.failed], 'and')} failed on every seed")
    return _begun(_standing(verdict, found) + "; ".join(told) + ".")


def sentences(folder: Folder) -> list[Sentence]:
    """Loss and time, the axes that came out better, worse, and open, then costs and warnings; nothing without a verdict."""
    verdict = judged(folder)
    if verdict is None:
        return []
    if verdict.parts:
        told = [Sentence("part", text) for text in changes.answers(verdict)]
        return told + [Sentence("warning", text) for text in changes.BEWARE] + _warnings(verdict.verdict)
    told = _losses(verdict) + _axes(verdict) + _reach(verdict) + _missing(folder, verdict)
    told += [Sentence("cost", text) for other in verdict.methods[1:] if (text := costs.beside(verdict, other))]
    told += [Sentence("cost", text) for text in costs.ranges(folder.overhead)]
    if folder.overhead is None and verdict.entry("step_time", verdict.baseline):
        told.append(Sentence("cost", costs.UNTIMED))
    told += [Sentence("warning", text) for text in costs.unmeasured(folder.overhead, folder.drill)]
    return told + _warnings(verdict.verdict)


def _standing(verdict: Judged, entries: list[Record]) -> str:
    """What a statement begins with unless every pair that it speaks of has seeds enough for a claim."""
    if not verdict.is_screening(entries):
        return ""
    fewest, most = (end(entry["n"] for entry in entries) for end in (min, max))
    return f"in a screening with {fewest if fewest == most else f'{fewest} to {most}'} seed{'s' * (most != 1)}, "


def _begun(text: str) -> str:
    return text[0].upper() + text[1:]


def _losses(verdict: Judged) -> list[Sentence]:
    """One sentence on loss after equal steps, loss in equal time, and steps to a target."""
    others = verdict.methods[1:]
    clauses = [clause for name in LOSSES for clause in _loss(name, others, verdict)]
    if not others or not clauses:
        return []
    entries = [entry for name in LOSSES for other in others if (entry := verdict.entry(name, other))]
    return [Sentence("loss", _begun(_standing(verdict, entries) + "; ".join(clauses) + "."))]


def _loss(name: str, others: list[str], verdict: Judged) -> list[str]:
    """A clause for every word that a measure got."""
    better, worse, topic = LOSSES[name]
    subject = style.name(verdict.subject)
    told: dict[str, list[str]] = {"better": [], "worse": [], "no evidence": [], "missing": []}
    for other in others:
        entry = verdict.entry(name, other)
        detail = "" if entry is None else f" ({verdict.detail(name, entry)})"
        told["missing" if entry is None else entry["word"]].append(style.name(other) + detail)
    clauses = [
        f"{subject} {verb} {listed(told[word], 'and')}"
        for word, verb in (("better", better), ("worse", worse))
        if told[word]
    ]
    if told["no evidence"]:
        clauses.append(
            f"there is no evidence that {subject} differs in {topic} from {listed(told['no evidence'], 'or')}"
        )
    if told["missing"]:
        clauses.append(f"{topic} was not measured against {listed(told['missing'], 'or')}")
    return clauses


def _axes(verdict: Judged) -> list[Sentence]:
    """A sentence each for the axes on which the subject came out better, worse, and neither."""
    others = verdict.methods[1:]
    if not others:
        return []
    if not verdict.axes:
        return [Sentence("open", "No axis of the paper was measured.")]
    subject = style.name(verdict.subject)
    judged_against = [other for other in others if any(verdict.entry(axis, other) for axis in verdict.axes)]
    if not judged_against:
        return []
    told: list[Sentence] = []
    for word in ("better", "worse"):
        groups = _grouped(verdict, word)
        clauses = [
            f"than {listed([style.name(other) for other in rivals], 'and')} at "
            + listed([_named(verdict, axis, rivals) for axis in axes], "and")
            for rivals, axes in groups.items()
        ]
        none = f"on no axis is {subject} {word} than {listed([style.name(other) for other in judged_against], 'or')}"
        text = f"{subject} is {word} {', and '.join(clauses)}" if clauses else none
        told.append(Sentence(word, _begun(f"{_screening(verdict, groups)}{text}.")))
    groups = _grouped(verdict, "no evidence")
    if groups:
        clauses = [
            f"from {listed([style.name(other) for other in rivals], 'or')} at {listed([_topic(verdict, a) for a in axes], 'or')}"
            for rivals, axes in groups.items()
        ]
        text = f"there is no evidence that {subject} differs {', nor '.join(clauses)}"
        told.append(Sentence("open", _begun(f"{_screening(verdict, groups)}{text}.")))
    return told


def _screening(verdict: Judged, groups: dict[tuple[str, ...], list[str]]) -> str:
    """What a sentence on axes begins with, by the pairs that it speaks of: those of the groups, or without any, all."""
    named = groups or {tuple(verdict.methods[1:]): verdict.axes}
    pairs = [(axis, other) for rivals, axes in named.items() for axis in axes for other in rivals]
    entries = [entry for pair in pairs if (entry := verdict.entry(*pair))]
    return "in this screening, " if verdict.is_screening(entries) else ""


def _grouped(verdict: Judged, word: str) -> dict[tuple[str, ...], list[str]]:
    """Axes by the methods against which they got a word."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for axis in verdict.axes:
        entries = {other: verdict.entry(axis, other) for other in verdict.methods[1:]}
        rivals = tuple(other for other, entry in entries.items() if entry is not None and entry["word"] == word)
        if rivals:
            groups.setdefault(rivals, []).append(axis)
    return groups


def _topic(verdict: Judged, axis: str) -> str:
    """An axis in the middle of a sentence."""
    return str(verdict.measure(axis)["title"]).partition(",")[0].lower()


def _named(verdict: Judged, axis: str, rivals: tuple[str, ...]) -> str:
    """An axis with the size of the effect against each rival."""
    measure = verdict.measure(axis)
    effects = [words.effect(measure, entry["effect"]) for other in rivals if (entry := verdict.entry(axis, other))]
    return f"{_topic(verdict, axis)} ({listed(effects, 'and')} {words.effect_unit(measure)})"


def _reach(verdict: Judged) -> list[Sentence]:
    """Whether context helps where it should reach furthest more than it helps the loss, as far as the words can tell."""
    control = next((method for method in CONTROLS if verdict.entry(LOSS, method)), "")
    loss = verdict.entry(LOSS, control)
    found = {axis: entry["word"] for axis in REACH if (entry := verdict.entry(axis, control))}
    if verdict.subject != SUBJECT or loss is None or not found:
        return []
    by_word: dict[str, list[str]] = {}
    for axis, word in found.items():
        by_word.setdefault(word, []).append(_topic(verdict, axis))
    told = ", ".join(f"{_quoted(word)} at {listed(axes, 'and')}" for word, axes in by_word.items())
    if "better" not in by_word:
        end = "nothing here says so"
    elif loss["word"] == "better":
        end = "whether it helps there by more than it helps the loss, these words cannot tell"
    else:
        end = "that points to a yes, but the gap between the two was not tested"
    topics = listed([_topic(verdict, axis) for axis in found], "and")
    text = (
        f"Does context help at {topics} more than at plain loss? Against {style.name(control)}, {METHODS[control].without_context}, "
        f"the word is {_quoted(loss['word'])} at plain loss and {told}: {end}."
    )
    return [Sentence("open", text)]


def _quoted(word: str) -> str:
    return f"\N{LEFT DOUBLE QUOTATION MARK}{word}\N{RIGHT DOUBLE QUOTATION MARK}"


def _missing(folder: Folder, verdict: Judged) -> list[Sentence]:
    """Axes that were asked for and could not be measured, and why where no table or figure of the paper tells it."""
    asked = {axis for run in folder.runs for axis, state in run.result.get("axes", {}).items() if state.get("reason")}
    names = sorted(axis for axis in asked if not verdict.taken(axis))
    below = {axis for claim in claims() for axis in claim.axes}
    told = [name if name in below else f"{name} ({reason(folder.runs, name)})" for name in names]
    return [Sentence("open", f"Not measured, for reasons given here or below: {listed(told, 'and')}.")] if told else []


def _warnings(verdict: Record) -> list[Sentence]:
    """How much the whole is worth, and which runs and pairs are missing from it."""
    told = [Sentence("warning", verdict["statement"])]
    if verdict["failed"]:
        text = (
            f"{len(verdict['failed'])} of {verdict['runs']['planned']} runs failed (listed below). Their seeds are missing "
            "from the pairs concerned, and a method is not called better where it failed."
        )
        told.append(Sentence("warning", text))
    if verdict["refused"]:
        count = len(verdict["refused"])
        told.append(Sentence("warning", f"{count} pairings were refused because hashes disagree (listed below)."))
    return told

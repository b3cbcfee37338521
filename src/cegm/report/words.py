"""The verdict in plain sentences, and numbers as people read them. Pure functions of `verdict.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cegm.report import style
from cegm.report.folder import Folder, Record

MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
NONE = "\N{EN DASH}"

QUALITY = ("bits_per_byte", "retention", "equal_seconds", "steps_to_target")
COST = ("step_time", "memory", "optimizer_state")
PHRASES = {
    "bits_per_byte": ("a lower validation loss after equal steps", "a higher validation loss after equal steps"),
    "retention": ("better recall over long texts", "worse recall over long texts"),
    "equal_seconds": (
        "a lower validation loss in equal training time",
        "a higher validation loss in equal training time",
    ),
    "steps_to_target": ("fewer steps to AdamW's final loss", "more steps to AdamW's final loss"),
}
TOPICS = {
    "bits_per_byte": "validation loss after equal steps",
    "retention": "recall over long texts",
    "equal_seconds": "validation loss in equal training time",
    "steps_to_target": "steps to AdamW's final loss",
}


@dataclass(frozen=True)
class Sentence:
    """A statement and where it belongs."""

    kind: Literal["found", "not found", "cost", "warning"]
    text: str


def headline(folder: Folder) -> str:
    """The answer to the main question in one sentence."""
    if not folder.is_comparison:
        run = folder.runs[0]
        state = "finished" if run.status == "finished" else "did not finish"
        return f"One run of {style.name(run.method)} (seed {run.seed}) {state}; there is nothing to compare it with."
    if folder.verdict is None:
        return "This comparison has not been judged yet: it holds no verdict."
    first = folder.verdict["methods"][0]
    subject = style.name(first)
    pairs = [entry for entry in _measure(folder.verdict, "bits_per_byte")["pairs"] if entry["pair"][0] == first]
    judged = [entry for entry in pairs if entry["effect"] is not None]
    if not judged:
        return f"{subject} cannot be judged: no other method shares a finished, properly paired run with it."
    clauses = []
    for word, verb in (("better", "a lower validation loss than"), ("worse", "a higher validation loss than")):
        others = [style.name(entry["pair"][1]) for entry in judged if entry["word"] == word]
        if others:
            clauses.append(f"{verb} {_listed(others, 'and')}")
    undecided = [style.name(entry["pair"][1]) for entry in judged if entry["word"] == "no evidence"]
    told = [f"{subject} ends with {' and '.join(clauses)}"] if clauses else []
    if undecided:
        told.append(
            f"there is no evidence of a difference in validation loss between {subject} and {_listed(undecided, 'or')}"
        )
    seeds = min(entry["n"] for entry in judged)
    standing = f"In a screening with {seeds} seed{'s' * (seeds != 1)}, " if folder.verdict["screening"] else ""
    text = standing + "; ".join(told) + "."
    return text[0].upper() + text[1:]


def sentences(folder: Folder) -> list[Sentence]:
    """What was found, what was not, what it cost and what to beware of; nothing for a folder without a verdict."""
    verdict = folder.verdict
    if verdict is None:
        return []
    subject = verdict["methods"][0]
    told: list[Sentence] = []
    for measure in (_measure(verdict, name) for name in QUALITY):
        entries = [entry for entry in measure["pairs"] if entry["pair"][0] == subject]
        for word in ("better", "worse", "no evidence"):
            told += _quality(measure, entries, word)
        missing = [style.name(entry["pair"][1]) for entry in entries if entry["effect"] is None]
        if missing:
            topic = TOPICS[measure["name"]]
            told.append(Sentence("not found", f"Not measured: {topic} against {_listed(missing, 'and')}."))
    told += [sentence for other in verdict["methods"][1:] for sentence in _axes(verdict, other)]
    costs = [_cost(verdict, other) for other in verdict["methods"][1:]]
    told += [Sentence("cost", text) for text in costs if text]
    told += _overhead(folder.overhead) if folder.overhead else []
    told.append(Sentence("warning", verdict["statement"]))
    if verdict["failed"]:
        failed = len(verdict["failed"])
        told.append(
            Sentence(
                "warning",
                f"{failed} of {verdict['runs']['planned']} runs failed (listed below). Their seeds are missing from "
                "the pairs concerned, and a method is not called better where it failed.",
            )
        )
    if verdict["refused"]:
        count = len(verdict["refused"])
        told.append(Sentence("warning", f"{count} pairings were refused because hashes disagree (listed below)."))
    return told


def _quality(measure: Record, entries: list[Record], word: str) -> list[Sentence]:
    """One sentence for all pairs of a measure that got the same word; none without such a pair."""
    chosen = [entry for entry in entries if entry["effect"] is not None and entry["word"] == word]
    if not chosen:
        return []
    first = style.name(chosen[0]["pair"][0])
    seconds = [f"{style.name(entry['pair'][1])} ({_detail(measure, entry)})" for entry in chosen]
    if word == "no evidence":
        text = f"No evidence that {first} differs in {TOPICS[measure['name']]} from {_listed(seconds, 'or')}."
        return [Sentence("not found", text)]
    verb = "needs" if measure["name"] == "steps_to_target" else "has"
    phrase = PHRASES[measure["name"]][word == "worse"]
    return [Sentence("found", f"{first} {verb} {phrase} than {' and than '.join(seconds)}.")]


def _axes(verdict: Record, other: str) -> list[Sentence]:
    """One sentence for all axes on which the subject came out alike against another method; recall has sentences of its own."""
    pair = [verdict["methods"][0], other]
    by_word: dict[str, list[str]] = {"better": [], "worse": [], "no evidence": []}
    for measure in verdict["measures"]:
        if measure["family"] == "exploratory" or measure["name"] in QUALITY:
            continue
        for entry in measure["pairs"]:
            if entry["pair"] == pair and entry["effect"] is not None:
                by_word[entry["word"]].append(f"{measure['title'].lower()} ({difference(measure, entry)})")
    subject, rival = (style.name(method) for method in pair)
    told = []
    for word in ("better", "worse"):
        if by_word[word]:
            told.append(Sentence("found", f"{subject} is {word} than {rival} at {_listed(by_word[word], 'and')}."))
    if by_word["no evidence"]:
        names = _listed(by_word["no evidence"], "or")
        told.append(Sentence("not found", f"No evidence that {subject} differs from {rival} at {names}."))
    return told


def _detail(measure: Record, entry: Record) -> str:
    parts = [difference(measure, entry), f"95 % interval {bounds(measure, entry)}", f"{entry['n']} seeds"]
    if entry["interval"] is None:
        parts = [parts[0], "one seed"]
    elif entry["word"] == "no evidence":
        smallest = effect(measure, entry["smallest_detectable"]).lstrip("+")
        parts.append(f"a true difference below {smallest} would often go unseen")
    return ", ".join(parts)


def _cost(verdict: Record, other: str) -> str:
    """One sentence on time, memory and state against another method."""
    parts = []
    for name, topic in (
        ("step_time", "the time per step"),
        ("memory", "the peak memory"),
        ("optimizer_state", "the optimizer state"),
    ):
        entry = next(
            (e for e in _measure(verdict, name).get("pairs", []) if e["pair"] == [verdict["methods"][0], other]), None
        )
        if entry is not None and entry["effect"] is not None:
            exact = entry["p"] is None
            parts.append(
                f"{entry['effect']:.3f} {TIMES} {topic}"
                + ("" if exact else f" (95 % interval {bounds({'effect': 'ratio'}, entry)})")
            )
    subject = style.name(verdict["methods"][0])
    return f"Compared with {style.name(other)}, {subject} takes {', '.join(parts)}." if parts else ""


def _overhead(overhead: Record) -> list[Sentence]:
    """The range of every method's step over the reference's, and the shapes that could not be measured."""
    points = [point for point in overhead["points"] if "methods" in point]
    told = [
        Sentence("cost", _range(points, method, overhead["reference"]))
        for method in overhead["methods"]
        if points and method != overhead["reference"]
    ]
    for point in overhead["points"]:
        if "error" in point:
            told.append(Sentence("warning", f"No overhead was measured at {_shape(point)}: {point['error']}."))
    return told


def _range(points: list[Record], method: str, reference: str) -> str:
    times = [point["methods"][method]["ratio"]["estimate"] for point in points]
    memory = [point["methods"][method]["peak_ratio"] for point in points]
    dearest = points[times.index(max(times))]
    return (
        f"Over {len(points)} shape{'s' * (len(points) != 1)}, a step of {style.name(method)} takes {min(times):.2f} to "
        f"{max(times):.2f} {TIMES} the time of {style.name(reference)}'s (most at {_shape(dearest)}) and "
        f"{min(memory):.2f} to {max(memory):.2f} {TIMES} its peak memory."
    )


def _shape(point: Record) -> str:
    return f"width {point['width']}, {point['batch']} x {point['length']} tokens"


def difference(measure: Record, entry: Record) -> str:
    """The effect with its sign and unit, or as a factor."""
    unit = "" if measure["effect"] == "ratio" else f" {effect_unit(measure)}"
    return effect(measure, entry["effect"]) + unit


def effect(measure: Record, number: float) -> str:
    """A size of an effect, with its sign, or as a factor."""
    if measure["effect"] == "ratio":
        return f"{number:.3f} {TIMES}"
    scale, digits = {"accuracy": (100, 1), "steps": (1, 0)}.get(measure["unit"], (1, 4))
    shown = f"{abs(scale * number):,.{digits}f}"
    sign = "" if float(shown.replace(",", "")) == 0 else MINUS if number < 0 else "+"
    return sign + shown


def bounds(measure: Record, entry: Record) -> str:
    """The ends of the 95 % interval."""
    if entry["interval"] is None:
        return NONE
    low, high = (effect(measure, bound).removesuffix(f" {TIMES}") for bound in entry["interval"])
    return f"{low} to {high}"


def effect_unit(measure: Record) -> str:
    """Unit of an effect: that of the measure, percentage points, or a factor."""
    if measure["effect"] == "ratio":
        return "factor"
    return "percentage points" if measure["unit"] == "accuracy" else str(measure["unit"])


def value(measure: str, number: Any) -> str:
    """A method's own value of a measure, with its unit where the number alone would not tell."""
    if number is None:
        return NONE
    if measure in ("bits_per_byte", "equal_seconds"):
        return f"{number:.4f}"
    if measure == "retention":
        return f"{100 * number:.1f} %"
    if measure == "step_time":
        return f"{1000 * number:.1f} ms"
    if measure in ("memory", "optimizer_state"):
        return f"{number / 2**20:,.1f} MiB"
    return f"{number:,.0f}"


def _listed(names: list[str], word: str) -> str:
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _measure(verdict: Record, name: str) -> Record:
    return next((measure for measure in verdict["measures"] if measure["name"] == name), {})

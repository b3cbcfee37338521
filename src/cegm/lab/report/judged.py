"""A verdict as the report asks it: measures by name, pairs of the subject, levels of an axis, what was not measured and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cegm.lab.baselines import BASE, ordered
from cegm.lab.report import words
from cegm.lab.report.runs import Folder, Record, Run

LOSS = "bits_per_byte"
"""The one primary measure that is no axis."""

SHARED_MACHINE = "step_time"
"""The measure whose ratios come from runs that share the machine."""

CONTROL = "control: "
"""Subsets that begin with this are answered by no model."""


@dataclass(frozen=True)
class Judged:
    """A verdict and the questions that pages and sentences ask it.

    Attributes:
        verdict: Content of `verdict.json`, whose fields docs/verdict.md tells.
    """

    verdict: Record

    @property
    def methods(self) -> list[str]:
        """In the order of `cegm.lab.baselines.ordered`: the subject first, the baseline last."""
        return ordered(self.verdict["methods"])

    @property
    def subject(self) -> str:
        """Whom the verdict is about."""
        return self.methods[0]

    @property
    def baseline(self) -> str:
        """The method that stands in the place of the paper's baseline; the subject itself where it is alone."""
        return self.methods[-1]

    @property
    def columns(self) -> list[str]:
        """Methods as columns of a table: the baseline first, the subject last, as in the paper."""
        return list(reversed(self.methods))

    @property
    def failed(self) -> list[str]:
        """Methods that failed on every seed."""
        return list(self.verdict.get("failed_methods", []))

    def is_screening(self, entries: list[Record]) -> bool:
        """Whether any of these pairs has too few seeds for a claim."""
        return any(entry.get("screening", self.verdict["screening"]) for entry in entries)

    def measure(self, name: str) -> Record:
        """A measure, or an empty record where it was not taken."""
        return next((measure for measure in self.verdict["measures"] if measure["name"] == name), {})

    def entry(self, name: str, other: str) -> Record | None:
        """The subject against another method; None where nothing was measured."""
        return self.pair(name, self.subject, other)

    def pair(self, name: str, first: str, second: str) -> Record | None:
        """One arm against another; None where nothing was measured."""
        entries = self.measure(name).get("pairs", [])
        found = next((entry for entry in entries if entry["pair"] == [first, second]), None)
        return None if found is None or found["effect"] is None else found

    def entries(self, names: Iterable[str], others: Iterable[str] | None = None) -> list[Record]:
        """The subject against some other methods, or all, in some measures, as far as there is something."""
        rivals = list(self.methods[1:] if others is None else others)
        return [entry for name in names for other in rivals if (entry := self.entry(name, other)) is not None]

    def by_word(self, name: str) -> dict[str, list[str]]:
        """Other methods by the word that a measure got against them, `missing` where it got none."""
        found: dict[str, list[str]] = {"better": [], "worse": [], "no evidence": [], "missing": []}
        for other in self.methods[1:]:
            entry = self.entry(name, other)
            found["missing" if entry is None else entry["word"]].append(other)
        return found

    def detail(self, name: str, entry: Record) -> str:
        """Size, interval or points, and for "no evidence" what might be there all the same."""
        measure = self.measure(name)
        smallest = words.effect(measure, entry.get("smallest_detectable") or 0.0)
        tests = self.verdict.get("no_loss") or [] if name == LOSS else []
        equal = next((test["margin"] for test in tests if test["pair"] == entry["pair"] and test["no_loss"]), None)
        return words.told("sentences", "detail", measure=measure, entry=entry, smallest=smallest, margin=equal)

    @property
    def shown(self) -> list[Record]:
        """Measures but for the ratio of times of runs that shared a machine; only steps in turns give one that is shown."""
        return [measure for measure in self.verdict["measures"] if measure["name"] != SHARED_MACHINE]

    @property
    def checkpoints(self) -> list[tuple[str, list[str], Record]]:
        """McNemar's tests of the subject's checkpoints against another method's: title of the axis, pair, and test of a seed."""
        return [
            (measure["title"], entry["pair"], test)
            for measure in self.verdict["measures"]
            for entry in measure["pairs"]
            for test in entry.get("mcnemar") or ()
            if entry["pair"][0] == self.subject
        ]

    @property
    def parts(self) -> list[Record]:
        """Of an ablation, its changes by question; empty for methods that were compared with each other."""
        return list(self.verdict.get("parts", []))

    @property
    def changes(self) -> list[str]:
        """Of an ablation, its arms but the base."""
        return [arm for arm in self.methods if arm != BASE]

    def taken(self, name: str) -> bool:
        """Whether any run has a value of the measure."""
        summaries = self.measure(name).get("methods", {}).values()
        return any(value is not None for own in summaries for value in own["values"].values())

    @property
    def axes(self) -> list[str]:
        """Axes that were examined, in the order of the verdict."""
        primary = [m["name"] for m in self.verdict["measures"] if m["family"] == "primary"]
        return [name for name in primary if name != LOSS and self.taken(name)]

    def levels(self, axis: str, subset: str | None = None) -> list[Record]:
        """How each level of an axis came out, of one subset or of all but the controls; empty in verdicts that do not tell."""
        found = [entry for entry in self._all(axis) if not entry["subset"].startswith(CONTROL)]
        return [entry for entry in found if subset in (None, entry["subset"])]

    def controls(self, axis: str) -> list[Record]:
        """The same of its controls; `subset` is then the name of the control."""
        found = [entry for entry in self._all(axis) if entry["subset"].startswith(CONTROL)]
        return [{**entry, "subset": entry["subset"].removeprefix(CONTROL)} for entry in found]

    def _all(self, axis: str) -> list[Record]:
        return list(self.verdict.get("axes", {}).get(axis, []))


def judged(folder: Folder) -> Judged | None:
    """The verdict of a folder, if it holds one."""
    return None if folder.verdict is None else Judged(folder.verdict)


def reason(runs: list[Run], axis: str) -> str:
    """Why an axis was not measured, as the runs tell."""
    told = [run.result.get("axes", {}).get(axis) for run in runs]
    reasons = dict.fromkeys(each["reason"] for each in told if each and each.get("reason"))
    return "; ".join(reasons) or "it is not among the axes of this comparison"


def warned(runs: list[Run], axis: str) -> list[str]:
    """What was left out of an axis, as the runs tell."""
    return list(
        dict.fromkeys(text for run in runs for text in (run.result.get("axes", {}).get(axis) or {}).get("warnings", ()))
    )

"""What the records in a release say; card, bill of materials and coverage are written from this, and from nothing outside the release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from cegm.lab.records import checked
from cegm.lab.release.layout import ReleaseFolder
from cegm.lab.report import runs
from cegm.lab.report.runs import Record, Run, finite
from cegm.lab.strict import json_object
from cegm.lab.train import audit, verification
from cegm.lab.train.driving import Explanation

NOT_PROVIDED = "not provided"

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Hashes(Struct):
    """Of `config.yaml`, what the run read and what read it."""

    data: Sha256
    initial_weights: Sha256
    code: Sha256


class Described(Struct):
    """Of `config.yaml`, what a release needs."""

    config: dict[str, Any]
    versions: dict[str, str]
    hashes: Hashes
    hardware: str
    threads: int
    tokens: dict[str, int]
    left_out: dict[str, Any]


class Finish(Struct):
    """Of the event with which a run ended, what a release needs."""

    time: str
    final_hash: Sha256


class Pair(Struct):
    """Two arms of a measure in `verdict.json`."""

    pair: tuple[str, str]
    effect: float
    word: str
    interval: tuple[float, float] | None = None


class Arm(Struct):
    """An arm of a measure in `verdict.json`: its value on each seed."""

    values: dict[str, float | None]


class Measure(Struct):
    """A measure in `verdict.json`."""

    name: str
    title: str
    methods: dict[str, Arm] = {}
    pairs: list[Pair] = []


class Verdict(Struct):
    """Of `verdict.json`, what a comparison writes; that of a pilot need have none of it."""

    measures: list[Measure] = []


@dataclass(frozen=True)
class Evidence:
    """The run whose model is released, and what judged it.

    Attributes:
        run: Its records.
        events: Of its audit chain.
        end: Hash of the last line of that.
        files: Hashes of the files of the model, by name in the release.
        described: Of `config.yaml`, what a release needs.
        explanation: Which rows drove the updates; None where the run does not say.
        verdict: Content of `verdict.json`; None where the release has none.
        measures: Of that, the measures of a comparison.
        is_judged: Whether the released run is one of those that the verdict is about.
        chains: How many chains are in the release.
    """

    run: Run
    events: list[Record]
    end: str
    files: dict[str, str]
    described: Described
    explanation: Explanation | None
    verdict: Record | None
    measures: list[Measure]
    is_judged: bool
    chains: int

    @property
    def config(self) -> Record:
        """Options of the run."""
        return self.described.config

    @property
    def finish(self) -> Finish:
        """The end of the run."""
        return msgspec.convert(_finish(self.events), Finish)

    @property
    def name(self) -> str:
        """Name of the folder in which the run was made."""
        return Path(str(self.config.get("output_dir") or "")).name or "run"

    def said(self, name: str) -> str:
        """An option by which the run's owner says something, or that nobody did."""
        return str(self.config.get(name) or NOT_PROVIDED)

    def layers(self, key: str) -> list[tuple[int, dict[str, float]]]:
        """One number per layer, at every step at which any was logged."""
        found = []
        for line in self.run.train:
            values = {name: finite(numbers.get(key)) for name, numbers in (line.get("layers") or {}).items()}
            kept = {name: value for name, value in values.items() if value is not None}
            if kept:
                found.append((int(line["step"]), kept))
        return found

    def moved(self) -> list[tuple[str, float]]:
        """Layers with the mean of their update over their weight, the one that moved most first."""
        sums: dict[str, list[float]] = {}
        for _, values in self.layers("update_to_weight"):
            for name, value in values.items():
                sums.setdefault(name, []).append(value)
        return sorted(((name, fmean(values)) for name, values in sums.items()), key=lambda pair: -pair[1])

    def over_time(self, key: str) -> list[tuple[int, float]]:
        """The median over layers at the first, the middle and the last step at which it was logged."""
        found = self.layers(key)
        picked = sorted({0, len(found) // 2, len(found) - 1}) if found else []
        return [(found[index][0], median(found[index][1].values())) for index in picked]

    def retention(self) -> list[tuple[str, str]]:
        """What the run's examination says of retention, by length of the context."""
        levels: dict[str, Any] = self.run.result.get("retention") or {}
        return [(length, f"accuracy {v['accuracy']:.3f}, chance {v['chance']:.3f}") for length, v in levels.items()]

    def decided(self) -> Iterator[tuple[str, Any]]:
        """The plain values of a verdict, and those one level below, such as the word of a pilot's decision."""
        for name, value in (self.verdict or {}).items():
            below = value.items() if isinstance(value, dict) else [("", value)]
            for inner, plain in below:
                if isinstance(plain, str | int | float):
                    yield f"{name}.{inner}" if inner else name, plain

    def judged(self) -> Iterator[tuple[str, Pair]]:
        """Every pair of every measure of a comparison, behind the title of the measure."""
        for measure in self.measures:
            for pair in measure.pairs:
                yield measure.title, pair


def read(folder: ReleaseFolder) -> Evidence:
    """The evidence of a release; ValueError, which names the file, where a record is not what it should be."""
    place = folder.shipped
    (run,) = runs.read(place).runs
    events, end = audit.read(place / "audit.jsonl")
    checked(_finish(events), Finish, f"the finish in {place / 'audit.jsonl'}")
    explanation, verdict = (_object(path) for path in (place / "explanation.json", folder.verdict))
    measures = checked(verdict or {}, Verdict, str(folder.verdict)).measures
    files = verification.finished_files(place)
    return Evidence(
        run=run,
        events=events,
        end=end,
        files={name: digest for name, digest in files.items() if name.startswith("model/")},
        described=checked(run.config, Described, str(place / "config.yaml")),
        explanation=None if explanation is None else checked(explanation, Explanation, str(place / "explanation.json")),
        verdict=verdict,
        measures=measures,
        is_judged=_is_judged(run, measures),
        chains=len(list(folder.chains.glob("*/audit.jsonl"))),
    )


def _finish(events: list[Record]) -> Record:
    return next(event for event in reversed(events) if event["event"] == "finish")


def _object(path: Path) -> Record | None:
    return json_object(path) if path.is_file() else None


def _is_judged(run: Run, measures: list[Measure]) -> bool:
    """Whether a comparison has, for this seed, exactly the loss with which this run ended."""
    own = run.result.get("bits_per_byte")
    arms = [arm for measure in measures if measure.name == "bits_per_byte" for arm in measure.methods.values()]
    return own is not None and any(arm.values.get(str(run.seed)) == own for arm in arms)

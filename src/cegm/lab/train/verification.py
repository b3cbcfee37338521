"""`cegm verify RUN`: whether a run folder, or every run of a comparison, is what was written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cegm.columns import aligned
from cegm.durable import sha256
from cegm.lab.records import EVENTS, Metrics, Named
from cegm.lab.train import audit, checkpoints
from cegm.lab.train.folder import RunFolder

Event = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What was found about one part of a run folder.

    Attributes:
        part: File or folder, relative to the run folder.
        state: `whole`, `damaged`, or `unproven` where nothing trustworthy says what it should be.
        detail: In words.
    """

    part: str
    state: str
    detail: str


def verify(root: Path) -> list[Finding]:
    """Checks one run folder: audit chain, configuration, metrics, checkpoints, model; ValueError where it is none."""
    folder = RunFolder(root)
    if not folder.audit.is_file() and not folder.holds_run:
        raise ValueError(
            f"{root} is no run folder: it has neither audit.jsonl nor config.yaml; give the output_dir of a run"
        )
    chain, events = _chain(folder)
    return [chain, *_records(folder, events), *_model(folder, events), *_checkpoints(folder, events)]


def records(root: Path) -> list[Finding]:
    """What `verify` finds about all but model and checkpoints: what a report or an auditor reads of a run."""
    folder = RunFolder(root)
    chain, events = _chain(folder)
    return [chain, *_records(folder, events)]


def finished_files(root: Path) -> dict[str, str]:
    """Hashes of the files that a run ended with, by name; none where it has not finished or its log is broken."""
    finish = _finish(_chain(RunFolder(root))[1])
    return {} if finish is None else finish["files"]


def runs(root: Path) -> list[Path]:
    """The run folders of a comparison, in the order of their names, or the run folder itself."""
    inside = sorted(path.parent for path in (root / "runs").glob("*/audit.jsonl"))
    return inside or [root]


def table(findings: list[Finding]) -> str:
    """The findings as aligned text."""
    rows = [("part", "state", "detail"), *((f.part, f.state, f.detail) for f in findings)]
    return "\n".join(aligned(rows, {0, 1, 2}))


def answer(folder: Path) -> int:
    """Prints what was found about every run of a folder; 1 where something is damaged."""
    damaged = 0
    for run in runs(folder):
        findings = verify(run)
        damaged += sum(finding.state == "damaged" for finding in findings)
        print(f"{run}\n{table(findings)}\n")
    print(f"{folder}: {f'{damaged} damaged' if damaged else 'nothing is damaged'}")
    return int(damaged > 0)


def _chain(folder: RunFolder) -> tuple[Finding, list[Event]]:
    name = folder.audit.name
    try:
        if audit.is_unsealed(folder.audit):
            return Finding(name, "unproven", "is of a version whose lines had no hash of their own"), []
        events, end = audit.read(folder.audit)
    except FileNotFoundError:
        return Finding(name, "damaged", "is missing"), []
    except ValueError as error:
        return Finding(name, "damaged", str(error).removeprefix(f"{folder.audit} ")), []
    if not events:
        return Finding(name, "damaged", "is empty"), []
    for number, event in enumerate(events, start=1):
        try:
            msgspec.convert(event, EVENTS.get(str(event.get("event")), Named))
        except msgspec.ValidationError:
            return Finding(name, "damaged", f"line {number} is no event of a run"), []
    last = events[-1]
    step = f" at step {last['step']}" if "step" in last else ""
    return Finding(name, "whole", f"{len(events)} events, last {last['event']}{step}, chain ends in {end[:16]}"), events


def _records(folder: RunFolder, events: list[Event]) -> Iterator[Finding]:
    """`config.yaml`, `metrics.jsonl`, and what else a finished run says of itself."""
    begun = next((event for event in reversed(events) if event["event"] in ("start", "resume")), None)
    yield _file(folder, folder.config.name, None if begun is None else begun["config"])
    finish = _finish(events)
    if finish is None:
        yield _metrics(folder)
    else:
        yield _file(folder, folder.metrics.name, finish["files"].get(folder.metrics.name))
        for name in finish["files"].keys() - {folder.metrics.name}:
            if not _is_of_model(name):
                yield _file(folder, name, finish["files"][name])


def _model(folder: RunFolder, events: list[Event]) -> Iterator[Finding]:
    """What the end of the run wrote."""
    finish = _finish(events)
    if finish is None:
        return
    model = {name: digest for name, digest in finish["files"].items() if _is_of_model(name)}
    found = [_file(folder, name, digest) for name, digest in model.items()]
    damaged = [finding for finding in found if finding.state != "whole"]
    yield from damaged or [Finding("model", "whole", f"{len(found)} files are as at the finish")]


def _is_of_model(name: str) -> bool:
    return "/" in name


def _finish(events: list[Event]) -> Event | None:
    """The finish that the run ended with; none when it goes on, or went on, after it."""
    last = next((event for event in reversed(events) if event["event"] in ("start", "resume", "finish")), None)
    return last if last is not None and last["event"] == "finish" else None


def _file(folder: RunFolder, name: str, digest: str | None) -> Finding:
    path = folder.root / name
    if not path.is_file():
        return Finding(name, "damaged", "is missing")
    if digest is None:
        return Finding(name, "unproven", "no event of the log tells its hash")
    same = sha256(path) == digest
    return Finding(name, "whole" if same else "damaged", "as in the log" if same else "differs from the log")


def _metrics(folder: RunFolder) -> Finding:
    """Of a run that has not finished: every line can be read; the last may be in the making."""
    name = folder.metrics.name
    if not folder.metrics.is_file():
        return Finding(name, "unproven", "no line yet")
    *lines, rest = folder.metrics.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            msgspec.json.decode(line, type=Metrics)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Finding(name, "damaged", f"line {number} cannot be read")
    ending = ", the last one broken off" if rest else ""
    return Finding(name, "unproven", f"{len(lines)} lines{ending}; their hash is taken when the run finishes")


def _checkpoints(folder: RunFolder, events: list[Event]) -> Iterator[Finding]:
    recorded = _recorded(events)
    begun_from = {event["manifest"] for event in events if event["event"] == "resume"}
    there = {path.name: path for path in reversed(checkpoints.numbered(folder.checkpoints))}
    if _finish(events) is None:  # nobody needs them after it
        for name in recorded.keys() - there.keys():
            yield Finding(f"checkpoints/{name}", "damaged", "is missing")
    for name, path in there.items():
        yield _checkpoint(path, recorded.get(name), begun_from)


def _recorded(events: list[Event]) -> dict[str, str]:
    """Hash of the manifest of each checkpoint that was made and not removed."""
    recorded: dict[str, str] = {}
    for event in events:
        if event["event"] == "checkpoint":
            recorded[f"{checkpoints.PREFIX}{event['step']}"] = event["manifest"]
        elif event["event"] == "removed":
            recorded.pop(event["checkpoint"], None)
    return recorded


def _checkpoint(path: Path, recorded: str | None, begun_from: set[str]) -> Finding:
    """A checkpoint against its manifest, and that against the log, which tells its hash when it was made or resumed from."""
    part = f"checkpoints/{path.name}"
    try:
        step = checkpoints.verify(path)
    except checkpoints.DamagedError as error:
        return Finding(part, "damaged", error.reason)
    if step != int(path.name.removeprefix(checkpoints.PREFIX)):
        return Finding(part, "damaged", f"is the checkpoint of step {step}")
    digest = sha256(path / checkpoints.MANIFEST)
    if recorded is None and digest not in begun_from:
        return Finding(part, "unproven", "every file fits the manifest, but the log has no such checkpoint")
    if recorded not in (None, digest):
        return Finding(part, "damaged", "every file fits the manifest, but it is not the checkpoint in the log")
    files = sum(1 for file in path.rglob("*") if file.is_file())
    return Finding(part, "whole", f"{files} files fit the manifest, and the manifest the log")

"""`cegm pilot fix`: criteria and items are fixed before anything is measured, and everything later is held against them.

PILOT/pilot.yaml             all options, defaults included
PILOT/audit.jsonl            the chain: `fix`, `base` and `verdict`, each with hashes
PILOT/data/company/          the rows that are trained on, and those that are asked
PILOT/data/lessons.jsonl     the former as prompts and completions
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from cegm.durable import sha256, write_whole
from cegm.lab.pilot.design import TIMES, power
from cegm.lab.pilot.pilot_config import NOT_FIXED, PilotConfig
from cegm.lab.pilot.planned_costs import planned_costs
from cegm.lab.records import checked
from cegm.lab.strict import yaml_text
from cegm.lab.tasks.company import NAME, TEST, TRAIN, lesson
from cegm.lab.tasks.company_rows import Row, Task, plain_rows, read_rows
from cegm.lab.tasks.items import shuffled
from cegm.lab.train.audit import AuditLog, read

AUDIT = "audit.jsonl"
MOST_LESSONS = 20_000
"""Rows that are kept to train on; a pilot reads fewer."""


class Fix(Struct):
    """The event `fix` of the chain: what was fixed, and when."""

    time: str
    criteria: dict[str, Any]
    criteria_sha256: str
    items: dict[str, str]
    files: dict[str, str]

    @property
    def moment(self) -> datetime:
        """When."""
        return datetime.fromisoformat(self.time)


@dataclass(frozen=True)
class PilotFolder:
    """Places in the folder of a pilot."""

    root: Path

    @property
    def audit(self) -> Path:
        """The chain."""
        return self.root / AUDIT

    @property
    def options(self) -> Path:
        """All options, defaults included."""
        return self.root / "pilot.yaml"

    @property
    def data(self) -> Path:
        """What is trained on, and asked."""
        return self.root / "data"

    @property
    def rows(self) -> Path:
        """The rows of the company."""
        return self.data / NAME

    @property
    def lessons(self) -> Path:
        """What models learn."""
        return self.data / "lessons.jsonl"

    @property
    def base(self) -> Path:
        """The examination of the model as it is."""
        return self.root / "base"

    @property
    def comparison(self) -> Path:
        """The comparison."""
        return self.root / "comparison"

    @property
    def verdict(self) -> Path:
        """What came of it."""
        return self.root / "verdict.json"

    @property
    def page(self) -> Path:
        """Two sheets of paper."""
        return self.root / "page.html"


def fix(config: PilotConfig) -> list[str]:
    """Fixes a pilot in its folder, and says in lines what was fixed; ValueError where one was fixed there before, or rows are too few."""
    folder, task = PilotFolder(Path(config.output_dir)), task_of(config)
    if folder.audit.exists():
        when = fixed(folder).time
        raise ValueError(f"{folder.root} holds a pilot that was fixed at {when}; give another output_dir")
    rows = read_rows(task, config.data)
    asked = shuffled(rows.test, NAME, "items")[: config.items]
    learned = shuffled(rows.train, NAME, "lessons")[:MOST_LESSONS]
    folder.rows.mkdir(parents=True, exist_ok=True)
    for path, some in ((folder.rows / TRAIN, learned), (folder.rows / TEST, asked)):
        write_whole(path, "".join(row.line(task) for row in some))
    write_whole(folder.lessons, "".join(json.dumps(lesson(task, row)) + "\n" for row in learned))
    write_whole(folder.options, yaml_text(_flat(config)))
    lines = [*rows.told(), *_told(config, folder, len(asked), len(learned))]
    AuditLog(folder.audit).record(
        "fix",
        criteria=config.criteria,
        criteria_sha256=hashed(config.criteria),
        items=hashes(asked, task),
        files={path.name: sha256(path) for path in _files(folder)},
    )
    return lines


def _flat(config: PilotConfig) -> dict[str, Any]:
    """Every option under the name that a file gives it."""
    options = {**config.criteria, **{name: getattr(config, name) for name in NOT_FIXED}}
    shared, own = options.pop("shared"), options.pop("own")
    return {**options, **shared, **{f"{method}.{name}": value for method in own for name, value in own[method].items()}}


def task_of(config: PilotConfig) -> Task:
    """The task, which the configuration has checked."""
    return msgspec.convert(config.task, Task)


def _files(folder: PilotFolder) -> tuple[Path, Path]:
    return folder.rows / TRAIN, folder.lessons


def hashes(rows: list[Row], task: Task) -> dict[str, str]:
    """Hash of each row by its id."""
    return {row.name: hashlib.sha256(row.line(task).encode()).hexdigest()[:16] for row in rows}


def hashed(criteria: dict[str, Any]) -> str:
    """sha256 of criteria, hex."""
    return hashlib.sha256(json.dumps(criteria, sort_keys=True).encode()).hexdigest()


def _told(config: PilotConfig, folder: PilotFolder, asked: int, learned: int) -> list[str]:
    even, smallest = config.money().break_even_effect, config.smallest_worthwhile
    found = power(len(config.seed_list), smallest, even, config.spread)
    return [
        *(f"{name}: {value}" for name, value in config.criteria.items() if name not in ("shared", "own")),
        *(f"{name}: {value}" for name, value in config.shared.items()),
        f"{asked:,} questions, {learned:,} rows to learn from; break-even at {100 * even:.2f} points",
        f"an effect of {100 * TIMES * smallest:g} points ends in GO with a probability of {found:.2f}, "
        f"at a spread of {100 * config.spread:g} points",
        planned_costs(config),
        f"fixed {hashed(config.criteria)[:16]}; next: cegm pilot run {folder.options}",
    ]


def fixed(folder: PilotFolder) -> Fix:
    """What was fixed in a folder; ValueError where nothing was, or the chain is broken."""
    if not folder.audit.exists():
        raise ValueError(f"{folder.root} holds no pilot; fix one first: cegm pilot fix FILE")
    events = [event for event in read(folder.audit)[0] if event["event"] == "fix"]
    if len(events) != 1:
        raise ValueError(f"{folder.audit} holds {len(events)} fixes instead of one; give another output_dir")
    return checked(events[0], Fix, str(folder.audit), "restore it")


def require_as_fixed(config: PilotConfig) -> Fix:
    """What was fixed; ValueError where criteria, items or lessons are no longer that, which names the first of them."""
    folder = PilotFolder(Path(config.output_dir))
    before, now = fixed(folder), config.criteria
    if hashed(before.criteria) != before.criteria_sha256:
        raise ValueError(f"{folder.audit} holds criteria of another hash than it says; restore it")
    for name in {**before.criteria, **now}:
        if before.criteria.get(name) != now.get(name):
            raise ValueError(
                f"{_difference(name, before.criteria.get(name), now.get(name))} after it was fixed at {before.time}; "
                "restore it, or fix another pilot in another output_dir"
            )
    _require_items(folder, before, task_of(config))
    for path in _files(folder):
        if not path.exists() or sha256(path) != before.files[path.name]:
            raise ValueError(f"{path} was changed after it was fixed at {before.time}; restore it")
    return before


def _difference(name: str, before: Any, now: Any) -> str:
    """What of a criterion was changed, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        inner = next(each for each in {**before, **now} if before.get(each) != now.get(each))
        return _difference(inner, before.get(inner), now.get(inner))
    return f"{name} was changed from {before!r} to {now!r}"


def _require_items(folder: PilotFolder, before: Fix, task: Task) -> None:
    path = folder.rows / TEST
    if not path.exists():
        raise ValueError(f"{path} was removed after the fix at {before.time}; restore it")
    now = hashes(plain_rows(path, task), task)
    for name, digest in before.items.items():
        if now.get(name) != digest:
            what = "changed" if name in now else "removed"
            raise ValueError(f"item {name} of {path} was {what} after the fix at {before.time}; restore it")
    if more := now.keys() - before.items.keys():
        raise ValueError(f"item {min(more)} of {path} was added after the fix at {before.time}; remove it")

"""Where a roll-out stands: decided by its chain alone; `state.json` is what somebody may read, and is made from it.

ROLLOUT/audit.jsonl     decisions: `approve`, `serve`, `stage`, `wait`, `alarm`, `back`
ROLLOUT/state.json      what follows from them
ROLLOUT/requests.jsonl  a `Request` of `cegm.lab.records` per answer
ROLLOUT/texts.jsonl     prompts and answers, where somebody opted in
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from cegm.durable import write_whole
from cegm.lab.train import audit

APPROVED, SHADOW, ALL, BACK = "approved", "shadow", "all", "back"
STAGES: Mapping[str, float] = {SHADOW: 0.0, "canary 5": 0.05, "canary 25": 0.25, "canary 50": 0.5, ALL: 1.0}
"""In their order, each with the share of users whom the challenger answers; in the shadow nobody sees its answers."""

LOCK_SECONDS = 30.0
"""A decision takes milliseconds; whoever holds the lock for longer is stuck."""


@dataclass(frozen=True)
class RolloutFolder:
    """Places in the folder of one roll-out."""

    root: Path

    @property
    def audit(self) -> Path:
        """The chain of decisions."""
        return self.root / "audit.jsonl"

    @property
    def state(self) -> Path:
        """What follows from the chain."""
        return self.root / "state.json"

    @property
    def requests(self) -> Path:
        """A line per answer."""
        return self.root / "requests.jsonl"

    @property
    def texts(self) -> Path:
        """Prompts and answers, where they are kept."""
        return self.root / "texts.jsonl"

    @property
    def salt(self) -> Path:
        """What names of users are hashed with."""
        return self.root / "salt"


class RolloutState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a roll-out stands.

    Attributes:
        stage: `approved` before the first router, one of `STAGES`, or `back`.
        waiting: Whether a gate found neither success nor failure, so that the stage lasts until a person decides.
        since: When the stage began, ISO in UTC.
        reason: Why it is in this stage.
        champion: URL or model folder of the server of today.
        challenger: The same of the release.
        release: Folder of the release.
        manifest: sha256 of its manifest, hex, as it was approved.
        approver: Name of who approved last.
        approver_key: Fingerprint of that person's key.
        most_bits_per_byte: Limit on local texts, fixed by the first approval that gave one.
        events: Lines of the chain that it follows from.
        end: Hash of the last of them.
    """

    stage: str = ""
    waiting: bool = False
    since: str = ""
    reason: str = ""
    champion: str = ""
    challenger: str = ""
    release: str = ""
    manifest: str = ""
    approver: str = ""
    approver_key: str = ""
    most_bits_per_byte: float | None = None
    events: int = 0
    end: str = ""

    @property
    def share(self) -> float:
        """Share of users whom the challenger answers."""
        return STAGES.get(self.stage, 0.0)

    @property
    def next_stage(self) -> str:
        """The stage that an approval or a passed gate opens."""
        if self.stage not in STAGES:
            return APPROVED
        names = [*STAGES]
        return names[min(names.index(self.stage) + 1, len(names) - 1)]


def derive(events: Sequence[Mapping[str, Any]], end: str) -> RolloutState:
    """What follows from the events of a chain; ValueError where one lacks something that it decides by."""
    state = RolloutState()
    for event in events:
        try:
            state = _after(state, event)
        except KeyError as error:
            raise ValueError(f"event {event.get('event')!r} of the chain lacks {error}; it is of no roll-out") from None
    return msgspec.structs.replace(state, events=len(events), end=end)


def _after(state: RolloutState, event: Mapping[str, Any]) -> RolloutState:
    """The state after one more event; one that decides nothing leaves it as it is."""
    name, reason = event["event"], str(event.get("reason", ""))
    changed: dict[str, Any] = {}
    if name == "approve":
        facts = ("release", "manifest", "approver", "approver_key")
        limit = state.most_bits_per_byte or event.get("most_bits_per_byte")
        changed = {**{fact: event[fact] for fact in facts}, "stage": event["stage"], "most_bits_per_byte": limit}
        reason = reason or f"approved by {event['approver']}"
    elif name == "serve":
        return msgspec.structs.replace(state, champion=event["champion"], challenger=event["challenger"])
    elif name == "stage":
        changed = {"stage": event["stage"]}
    elif name == "wait":
        return msgspec.structs.replace(state, waiting=True, reason=reason)
    elif name == "back" or (name == "alarm" and event.get("hard")):
        changed = {"stage": BACK}
        reason = reason or f"alarm of {event.get('indicator')}"
    if not changed:
        return state
    return msgspec.structs.replace(state, **changed, waiting=False, since=event["time"], reason=reason)


def read(folder: RolloutFolder) -> tuple[RolloutState, list[dict[str, Any]]]:
    """The state that follows from the chain, and the events; ValueError where there is none or it is broken."""
    if not folder.audit.is_file():
        raise ValueError(f"{folder.root} holds no roll-out; approve a release first: cegm rollout approve RELEASE")
    with _alone(folder):
        events, end = audit.read(folder.audit)
    return derive(events, end), events


def record(folder: RolloutFolder, event: str, after: str | None = None, **facts: Any) -> RolloutState:
    """Appends a decision to the chain, on disk when this returns; the one way to do so, from any process.

    Args:
        folder: Of the roll-out.
        event: Name of the decision.
        after: Hash of the line that it was decided on; where another one has come since, nothing is appended.
        facts: Of the event.

    Returns:
        The state afterwards, which a decision in between may have made another one than expected.

    Raises:
        ValueError: The chain is broken, or another process holds it for too long.
        OSError: The disk did not take it.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        log = audit.AuditLog(folder.audit)
        events, end = audit.read(folder.audit) if folder.audit.exists() else ([], "")
        if after is None or after == end:
            log.record(event, **facts)
            events, end = audit.read(folder.audit)
        state = derive(events, end)
        write_whole(folder.state, _text(state))
    return state


def repair(folder: RolloutFolder) -> None:
    """Cuts off the start of a line that a full disk or a kill has left in the chain; ValueError where more is wrong with it."""
    with _alone(folder):
        audit.AuditLog(folder.audit)


def rebuild(folder: RolloutFolder) -> tuple[RolloutState, str]:
    """The state that follows from the chain; a `state.json` that says something else is written anew, and the words tell it."""
    state, _ = read(folder)
    text = _text(state)
    try:
        found = folder.state.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        found = ""
    if found == text:
        return state, ""
    with _alone(folder):
        write_whole(folder.state, text)
    said = f"says {_stage_in(found)!r}" if found else "is missing or unreadable"
    return state, f"{folder.state} {said}, the chain {state.stage!r}; it was rebuilt from the chain"


def _stage_in(text: str) -> str:
    try:
        return str(json.loads(text)["stage"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "nothing that can be read"


def _text(state: RolloutState) -> str:
    return json.dumps({**msgspec.to_builtins(state), "share": state.share}, indent=1) + "\n"


@contextmanager
def _alone(folder: RolloutFolder) -> Iterator[None]:
    """One process at a time at the chain."""
    try:
        with FileLock(folder.root / "audit.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise ValueError(f"another process has held {folder.audit} for {LOCK_SECONDS:g} s; end it") from None

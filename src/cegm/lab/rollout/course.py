"""The course of a roll-out while its router runs: the chain is looked at before every request, gates decide between them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import anyio.to_thread
import msgspec

from cegm.lab.records import Request
from cegm.lab.rollout import gates, rollout_state
from cegm.lab.rollout.gates import Judged
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import ALL, APPROVED, BACK, SHADOW, STAGES, RolloutFolder, RolloutState
from cegm.lab.rollout.tallies import Tallies
from cegm.lab.train import audit

LOOK_SECONDS = 0.2
"""Between two looks of the gates."""

GRACE_SECONDS = 1.0
"""A chain that cannot be read for longer is broken, and not just being written."""


class Course:
    """Knows where the roll-out stands, counts what happens, and decides at gates.

    Args:
        folder: Of the roll-out.
        config: With the limits.
        require_admitted: Raises ValueError unless the release may still serve.
        before: Requests that an earlier router of this roll-out has logged.
    """

    def __init__(
        self,
        folder: RolloutFolder,
        config: RolloutConfig,
        require_admitted: Callable[[], None],
        before: Iterable[Request] = (),
    ) -> None:
        self._folder, self._config, self._require_admitted = folder, config, require_admitted
        self._seen: tuple[int, int, int] | None = None
        self._unread_since: float | None = None
        self._unreadable = self._held = ""
        self._state = rollout_state.read(folder)[0]
        self.totals = Tallies()
        here = (each for each in before if each.stage == self._state.stage and each.time >= self._state.since)
        self.stage_tallies = Tallies(here)

    @property
    def state(self) -> RolloutState:
        """Where the roll-out stands now; back while the chain cannot be read or does not take a decision against the challenger."""
        self._look()
        against = self._unreadable or self._held
        return msgspec.structs.replace(self._state, stage=BACK, reason=against) if against else self._state

    def add(self, request: Request) -> None:
        """Counts an answer."""
        self.totals.add(request)
        self.stage_tallies.add(request)

    async def decide(self) -> None:
        """Looks at the gates once, and records what follows."""
        state = self.state
        if self._unreadable:
            await self._repair()
        elif self._held:
            await self._record_held()
        if state.stage == APPROVED:
            await self._open(state)
        if state.stage not in STAGES:
            return
        judged = self._judged(state)
        if not judged:
            return
        outcome, reason = gates.outcome(judged), "; ".join(map(str, judged))
        if outcome == "success":
            try:
                await anyio.to_thread.run_sync(self._require_admitted)
            except (ValueError, OSError) as error:
                outcome, reason = "failure", str(error)
        if outcome == "success":
            await self._record(state, "stage", stage=state.next_stage, reason=reason)
        elif outcome == "inconclusive":
            await self._record(state, "wait", reason=f"{reason}; a person decides: approve or back")
        else:
            self._held = reason
            await self._record_held()

    async def _open(self, state: RolloutState) -> None:
        """Begins with the shadow what was approved, if it still is as it was."""
        try:
            await anyio.to_thread.run_sync(self._require_admitted)
        except (ValueError, OSError) as error:
            self._held = str(error)
            return
        await self._record(state, "stage", stage=SHADOW, reason=state.reason)

    def _judged(self, state: RolloutState) -> Sequence[Judged]:
        """What the gates have to say now, if anything; after the last stage, and while a person is waited for, only what is beyond doubt."""
        doubtless = gates.beyond_doubt(self.stage_tallies, state.stage, self._config)
        if doubtless is not None:
            return [doubtless]
        return [] if state.waiting or state.stage == ALL else gates.judge(self.stage_tallies, state.stage, self._config)

    async def _record_held(self) -> None:
        """Writes down why the challenger gets nothing; until the disk takes it, the router alone knows."""
        if await self._record(self._state, "back", reason=self._held):
            self._held = ""

    async def _record(self, state: RolloutState, event: str, **facts: str) -> bool:
        """Whether a decision is in the chain; it is not where the disk is full, or somebody has decided meanwhile."""

        def write() -> RolloutState:
            return rollout_state.record(self._folder, event, after=state.end, who="gate", **facts)

        try:
            after = await anyio.to_thread.run_sync(write)
        except (ValueError, OSError):
            return False
        self._look()
        return after.events == state.events + 1

    async def _repair(self) -> None:
        """A full disk may have left the start of a line, which was never decided."""
        with suppress(ValueError, OSError):
            await anyio.to_thread.run_sync(rollout_state.repair, self._folder)

    def _look(self) -> None:
        """Reads the chain where it has changed."""
        try:
            status = os.stat(self._folder.audit)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns)
            if seen == self._seen:
                return
            state = rollout_state.derive(*audit.read(self._folder.audit))
        except (ValueError, OSError) as error:
            now = time.monotonic()
            self._unread_since = self._unread_since or now
            if now - self._unread_since > GRACE_SECONDS:
                self._unreadable = f"the chain cannot be read: {error}"
            return
        self._unread_since, self._unreadable = None, ""
        if (state.stage, state.since) != (self._state.stage, self._state.since):
            self.stage_tallies = Tallies()
        self._seen, self._state = seen, state

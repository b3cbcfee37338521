"""A roll-out in 80 columns: where it stands, and what was counted on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from cegm.columns import aligned
from cegm.lab.records import Request
from cegm.lab.rollout import request_log
from cegm.lab.rollout.gates import LEVEL
from cegm.lab.rollout.rollout_state import STAGES, RolloutFolder, RolloutState
from cegm.lab.rollout.tallies import Interval, Key, Tallies, quantile, share

WIDTH = 80
HEADER = ("stage", "answered by", "requests", "users % [95 %]", "errors % [95 %]", "p95 s")
WORDS = (0, 1)


def table(folder: RolloutFolder, state: RolloutState) -> str:
    """The page that `cegm rollout status` prints."""
    requests = list(request_log.read(folder.requests))
    waits = ", waits for a person" if state.waiting else ""
    lines = [
        f"{folder.root}: {state.stage}{waits}, since {state.since[:19]}",
        f"why: {state.reason}",
        f"release {state.release}",
        f"manifest {state.manifest[:16]}, approved by {state.approver}, key {state.approver_key[:16]}",
        f"champion {state.champion or 'none yet'}, challenger {state.challenger or 'none yet'}",
        f"chain: {state.events} decisions, ends in {state.end[:16]}",
        "",
    ]
    rows = [HEADER, *_rows(requests)]
    return "\n".join(
        [*(line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..." for line in lines), *aligned(rows, WORDS)]
    )


def _rows(requests: Iterable[Request]) -> Iterator[tuple[str, ...]]:
    """A row per stage and server, in the order of stages; in brackets stands whose answers nobody saw, and who so has no users."""
    tallies, users = Tallies(), dict[str, dict[str, str]]()
    for request in requests:
        tallies.add(request)
        if not request.shadow:
            of_stage = users.setdefault(request.stage, {})
            if of_stage.get(request.user) != "challenger":
                of_stage[request.user] = request.variant
    order = {stage: number for number, stage in enumerate(STAGES)}
    for key, tally in sorted(tallies.items(), key=lambda each: (order.get(each[0].stage, len(order)), each[0])):
        yield (
            key.stage,
            f"({key.variant})" if key.shadow else key.variant,
            f"{tally.requests:,}",
            "-" if key.shadow else _percent(_users(users[key.stage], key)),
            _percent(share(tally.errors, tally.requests)),
            _seconds(quantile(tally.latest, LEVEL).value),
        )


def _users(variants: dict[str, str], key: Key) -> Interval:
    """The share of users who belong to a server; whoever asked the challenger once does so, even where the champion answered for it."""
    return share(sum(variant == key.variant for variant in variants.values()), len(variants))


def _percent(found: Interval) -> str:
    value, low, high = (f"{round(100 * each, 1):g}" for each in found)
    return f"{value} [{low}, {high}]"


def _seconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"

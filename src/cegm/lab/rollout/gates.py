"""Gates between stages: success goes on, failure goes back, and what is neither waits for a person."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import SHADOW
from cegm.lab.rollout.tallies import Interval, Key, Tallies, Tally, quantile, share

Outcome = Literal["success", "failure", "inconclusive"]

LEVEL = 0.95
"""Quantile of times that is judged."""

DOUBT = 1e-9
"""A stage is looked at all the time; before its end only errors that as rarely happen within the limit count."""


@dataclass(frozen=True)
class Judged:
    """What one gate found.

    Attributes:
        gate: Its name.
        outcome: What follows.
        found: Value and interval.
        limit: What it was held against.
    """

    gate: str
    outcome: Outcome
    found: Interval
    limit: float

    def __str__(self) -> str:
        """The gate in words."""
        value, low, high = self.found
        return f"{self.gate} {value:.3g} [{low:.3g}, {high:.3g}] against {self.limit:.3g}: {self.outcome}"


def beyond_doubt(tallies: Tallies, stage: str, config: RolloutConfig) -> Judged | None:
    """A failure by errors of late that need no further request (by Chernoff's bound); None where there is none."""
    recent, limit = tallies[Key(stage, "challenger", stage == SHADOW)].recent, config.most_errors
    found = share(sum(recent), len(recent))
    if not found.value > limit:
        return None
    doubt = math.exp(-len(recent) * _divergence(found.value, limit))
    return Judged("errors", "failure", found, limit) if doubt < DOUBT else None


def _divergence(found: float, limit: float) -> float:
    """Of one share from another, in nats (Kullback and Leibler)."""
    if limit == 0:
        return math.inf
    of_others = (1 - found) * math.log((1 - found) / (1 - limit)) if found < 1 else 0.0
    return found * math.log(found / limit) + of_others


def judge(tallies: Tallies, stage: str, config: RolloutConfig) -> list[Judged]:
    """What the gates find at the end of a stage; nothing before it had its requests."""
    challenger, champion = tallies[Key(stage, "challenger", stage == SHADOW)], tallies[Key(stage, "champion", False)]
    if challenger.requests < config.stage_requests:
        return []
    errors = share(challenger.errors, challenger.requests)
    return [
        Judged("errors", _held_against(errors, config.most_errors), errors, config.most_errors),
        _seconds(challenger, champion, config.slower),
    ]


def outcome(judged: Iterable[Judged]) -> Outcome:
    """What follows from all gates together."""
    found = {each.outcome for each in judged}
    return "failure" if "failure" in found else "inconclusive" if "inconclusive" in found else "success"


def _seconds(challenger: Tally, champion: Tally, slower: float) -> Judged:
    """The 95th percentile of times against so many times the champion's."""
    found, today = quantile(challenger.latest, LEVEL), quantile(champion.latest, LEVEL)
    limit = slower * today.value
    return Judged("seconds", "inconclusive" if math.isnan(limit) else _held_against(found, limit), found, limit)


def _held_against(found: Interval, limit: float) -> Outcome:
    return "success" if found.high <= limit else "failure" if found.low > limit else "inconclusive"

"""From requests to alarms: a detector for each indicator of each variant, all held against one reference."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from cegm.lab.monitor.e_detector import ShiryaevRoberts
from cegm.lab.monitor.indicators import INDICATORS, LABEL, STREAMS, VARIANTS, Indicator
from cegm.lab.monitor.reference import Reference, detector, values_of
from cegm.lab.records import Request

EVENT = "alarm"
RUNBOOK = "docs/runbook.md"
LATEST = 50
"""Numbers of which an alarm tells the middle."""


class Alarm(Struct, frozen=True, kw_only=True):
    """The event `alarm` of the chain.

    Attributes:
        indicator: Name.
        variant: Whose requests changed.
        request: Number of the one that gave it.
        statistic: Evidence.
        threshold: That it reached, the promise times the number of detectors.
        promise: Mean number of requests between false alarms, at least.
        hard: Whether the traffic returns to the champion.
        before: Median in the reference; the mean of shares.
        now: The same of the latest numbers.
        reference: sha256 of what it is held against.
        reason: In words.
    """

    indicator: str
    variant: str
    request: int
    statistic: float
    threshold: float
    promise: float
    hard: bool
    before: float | None
    now: float
    reference: str
    reason: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What is told once: each stream gives one alarm for a reference."""
        return self.reference, self.variant, self.indicator


def known_keys(events: Sequence[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """What was told already, by a chain."""
    return {
        (event.get("reference", ""), event.get("variant", ""), event["indicator"])
        for event in events
        if event["event"] == EVENT
    }


class _Stream:
    """One indicator of one variant."""

    def __init__(self, variant: str, indicator: Indicator, known: Reference, before: Sequence[float]) -> None:
        self.variant, self.indicator, self.known = variant, indicator, known
        seed = f"{known.lines_sha256} {variant} {indicator.name}"
        self._pay, bets = detector(indicator, known, before, seed)
        self._evidence = ShiryaevRoberts(bets)
        self._latest: deque[float] = deque(maxlen=LATEST)
        self._before = self._middle(before) if before else None
        self.is_over = False

    def add(self, request: Request) -> Alarm | None:
        """Takes a request, and gives the alarm when it is time for it."""
        value = self.indicator.value(request)
        if self.is_over or value is None:
            return None
        self._latest.append(value)
        statistic = self._evidence.add(self._pay(value))
        if statistic < self.known.threshold:
            return None
        self.is_over = True
        return Alarm(
            indicator=self.indicator.name,
            variant=self.variant,
            request=request.number,
            statistic=statistic,
            threshold=self.known.threshold,
            promise=self.known.promise,
            hard=self.indicator.is_hard and self.variant == "challenger",
            before=self._before,
            now=self._middle(self._latest),
            reference=self.known.lines_sha256,
            reason=f"{self.variant}: {self.indicator.meaning}",
        )

    def _middle(self, values: Iterable[float]) -> float:
        return (statistics.fmean if self.indicator.unit == "share" else statistics.median)(values)


class Detectors:
    """All of them.

    Args:
        known: The reference.
        before: Its requests.
    """

    def __init__(self, known: Reference, before: Sequence[Request]) -> None:
        self._streams: dict[str, list[_Stream]] = {variant: [] for variant in VARIANTS}
        for variant, indicator in STREAMS:
            values = values_of(before, indicator.name)
            self._streams[variant].append(_Stream(variant, indicator, known, values))

    def add(self, request: Request) -> Iterator[Alarm]:
        """Takes a request, and gives the alarms that follow."""
        for stream in self._streams.get(request.variant, ()):
            alarm = stream.add(request)
            if alarm is not None:
                yield alarm


def told(alarm: Alarm, rollout: str) -> str:
    """An alarm in one line, with what to do."""
    indicator = next(each for each in INDICATORS if each.name == alarm.indicator)
    was = "nothing before" if alarm.before is None else f"{_number(alarm.before, indicator.unit)} before"
    done = "the traffic returns to the champion; " if alarm.hard else ""
    remedy = indicator.remedy.replace(LABEL, f"{LABEL} (cegm rollout label --output_dir {rollout})")
    return (
        f"{'HARD ALARM' if alarm.hard else 'alarm'} at request {alarm.request:,}: {alarm.reason}, {_number(alarm.now, indicator.unit)} "
        f"lately, {was} (evidence {alarm.statistic:,.0f} of {alarm.threshold:,.0f}); {done}{remedy}; {RUNBOOK}#{alarm.indicator}"
    )


def _number(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit == "share" else f"{value:,.4g} {unit}".rstrip()

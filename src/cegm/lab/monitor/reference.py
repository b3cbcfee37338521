"""The reference: the champion's first requests, in which nothing changed; their hash is in the chain, so that it stays what it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from cegm.lab.declarations import declared
from cegm.lab.monitor.conformal import Bag
from cegm.lab.monitor.e_detector import ShiryaevRoberts
from cegm.lab.monitor.indicators import INDICATORS, STREAMS, Indicator
from cegm.lab.monitor.limits import Limit, upper_limit
from cegm.lab.monitor.monitor_config import FIXED, MonitorConfig
from cegm.lab.monitor.request_tail import Line
from cegm.lab.monitor.rises import Rise
from cegm.lab.monitor.shifts import Shift
from cegm.lab.records import Request, checked

EVENT = "reference"
SLOWEST = 0.95
"""Quantile of the reference's times beyond which an answer is slow."""


class Reference(Struct, frozen=True, kw_only=True):
    """The event `reference` of the chain.

    Attributes:
        place: Byte of the log at which it begins.
        reference: Requests of the champion in it.
        promise: Mean number of requests between false alarms.
        options: As they were asked for.
        allowed_errors: Share that may fail.
        allowed_slow: Share of answers that may be slower than `slow_seconds`.
        slow_seconds: What 95 % of the reference took at most.
        lines_sha256: Of its lines of the log, hex.
    """

    place: int
    reference: int
    promise: float
    options: dict[str, float]
    allowed_errors: float
    allowed_slow: float
    slow_seconds: float
    lines_sha256: str

    @property
    def threshold(self) -> float:
        """Of every detector."""
        return self.promise * len(STREAMS)


def fixed(events: Sequence[dict[str, Any]]) -> Reference | None:
    """The latest reference in a chain."""
    known = [event for event in events if event["event"] == EVENT]
    return checked(known[-1], Reference, f"the reference of {known[-1]['time']}") if known else None


def require_same(known: Reference, config: MonitorConfig) -> None:
    """Raises ValueError for an option that is neither left out nor what was fixed."""
    for name, each in declared(MonitorConfig).items():
        asked, was = getattr(config, name), known.options.get(name)
        if was is not None and asked not in (was, each.default):
            raise ValueError(f"{name}={asked:g} was fixed at {was:g} with the reference; leave it, or add --renew")


def made(config: MonitorConfig, place: int, requests: Sequence[Request], lines_sha256: str) -> Reference:
    """The reference that requests of the champion make; a limit that it does not keep itself is raised to what it may need."""
    seconds = sorted(values_of(requests, "slow"))
    if not seconds:
        raise ValueError(f"the champion answered none of {len(requests)} requests; mend it, then start again")
    slow = seconds[int(SLOWEST * (len(seconds) - 1))]
    failed = int(sum(values_of(requests, "errors")))
    own_errors = upper_limit(failed, len(requests)) if failed > config.allowed_errors * len(requests) else 0.0
    return Reference(
        place=place,
        reference=len(requests),
        promise=config.promise,
        options={name: getattr(config, name) for name in FIXED},
        allowed_errors=max(config.allowed_errors, own_errors),
        allowed_slow=max(config.allowed_slow, upper_limit(sum(each > slow for each in seconds), len(seconds))),
        slow_seconds=slow,
        lines_sha256=lines_sha256,
    )


def digest(lines: Iterable[Line]) -> str:
    """sha256 of lines of the log, hex."""
    return hashlib.sha256(b"".join(line.content for line in lines)).hexdigest()


def values_of(requests: Sequence[Request], name: str) -> list[float]:
    """The numbers of one indicator."""
    indicator = next(each for each in INDICATORS if each.name == name)
    return [value for request in requests if (value := indicator.value(request)) is not None]


Payments = Callable[[float], Any]


def detector(indicator: Indicator, known: Reference, values: Sequence[float], seed: str) -> tuple[Payments, int]:
    """What an indicator's bets pay for a number, and how many bets these are; `values` are those of the reference."""
    if indicator.name == "errors":
        errors = Limit(known.allowed_errors)
        return lambda value: errors.factors(value > 0), errors.bets
    if indicator.name == "slow":
        slow = Limit(known.allowed_slow)
        return lambda value: slow.factors(value > known.slow_seconds), slow.bets
    bets = (Rise if indicator.watched == "rise" else Shift)(Bag(values, seed))
    return bets.factors, bets.bets


def restlessness(requests: Sequence[Request], threshold: float, seed: str) -> tuple[Indicator, int] | None:
    """An indicator that changed inside a would-be reference, and behind how many of its requests; None where all was quiet."""
    for indicator in INDICATORS:
        if indicator.is_hard:
            continue
        bets = (Rise if indicator.watched == "rise" else Shift)(Bag((), seed))
        evidence = ShiryaevRoberts(bets.bets)
        for count, request in enumerate(requests, start=1):
            value = indicator.value(request)
            if value is not None and evidence.add(bets.factors(value)) >= threshold:
                return indicator, count
    return None

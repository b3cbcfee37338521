"""Counts of requests by stage, variant and shadow, and what may be said of them: shares and quantiles with their intervals."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from cegm.lab.records import Request

Z = 1.959964
"""Of intervals that hold in 95 of 100 cases."""

LATEST = 1_000
"""Answers whose times are kept for quantiles."""

LEFT = 499
"""Status of a stream that its client left, which is nobody's failure."""


class Interval(NamedTuple):
    """A value and where it may lie."""

    value: float
    low: float
    high: float


class Key(NamedTuple):
    """What is counted together."""

    stage: str
    variant: str
    shadow: bool


RECENT = 200
"""Requests by which a failure is known at once, however many went well before."""


@dataclass
class Tally:
    """What was counted under one key.

    Attributes:
        requests: Answers and failed attempts.
        errors: Those that failed, by the server or on the way.
        refused: Those in which the model refused.
        characters: Of all answers.
        seconds: Time of all.
        latest: Times of the latest ones that did not fail, seconds.
        first_bytes: The same to the first byte.
        recent: Of the latest requests, whether they failed.
    """

    requests: int = 0
    errors: int = 0
    refused: int = 0
    characters: int = 0
    seconds: float = 0.0
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    first_bytes: deque[float] = field(default_factory=lambda: deque(maxlen=LATEST))
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, request: Request) -> None:
        """Counts one."""
        self.requests += 1
        self.errors += bool(request.error)
        self.recent.append(bool(request.error))
        self.refused += request.refused
        self.characters += request.characters
        self.seconds += request.seconds
        if not request.error and request.status != LEFT:
            self.latest.append(request.seconds)
            if request.first_byte_seconds is not None:
                self.first_bytes.append(request.first_byte_seconds)


class Tallies(defaultdict[Key, Tally]):
    """Tallies by key."""

    def __init__(self, requests: Iterable[Request] = ()) -> None:
        super().__init__(Tally)
        for request in requests:
            self.add(request)

    def add(self, request: Request) -> None:
        """Counts one under its key."""
        self[Key(request.stage, request.variant, request.shadow)].add(request)


def share(part: int, whole: int, z: float = Z) -> Interval:
    """A share with Wilson's interval, which also fits none and all; (nan, 0, 1) of nothing."""
    if whole == 0:
        return Interval(math.nan, 0.0, 1.0)
    value, weight = part / whole, z * z / whole
    middle = (value + weight / 2) / (1 + weight)
    reach = z * math.sqrt(value * (1 - value) / whole + weight / (4 * whole)) / (1 + weight)
    return Interval(value, 0.0 if part == 0 else middle - reach, 1.0 if part == whole else middle + reach)


def quantile(values: Iterable[float], level: float) -> Interval:
    """A quantile of a sample with the interval that its order statistics give; infinite where the sample is too small for a bound."""
    ordered = sorted(values)
    count = len(ordered)
    if count == 0:
        return Interval(math.nan, 0.0, math.inf)
    reach = Z * math.sqrt(count * level * (1 - level))
    low, high = math.floor(count * level - reach), math.ceil(count * level + reach)
    return Interval(
        ordered[min(count, math.ceil(count * level)) - 1],
        ordered[low - 1] if low >= 1 else 0.0,
        ordered[high - 1] if high <= count else math.inf,
    )

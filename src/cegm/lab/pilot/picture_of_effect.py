"""Where the one picture of a pilot has its marks: the effect against the smallest worthwhile one, and net against requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cegm.lab.pilot.decision import Decision
from cegm.lab.pilot.pilot_verdict import PilotVerdict

WIDTH, HEIGHT = 320.0, 120.0
"""Of a panel."""

MARGIN = 0.08


class Bar(NamedTuple):
    """An interval with its middle, as places."""

    low: float
    middle: float
    high: float


class Mark(NamedTuple):
    """A number of an axis, and its place."""

    place: float
    number: float


@dataclass(frozen=True)
class Picture:
    """All places of the picture, within `WIDTH` and `HEIGHT`.

    Attributes:
        zero: Of no effect.
        smallest: Of the smallest worthwhile effect.
        method: Interval over seeds.
        checkpoint: Interval over items.
        seeds: Of each seed.
        ends: The axis of effects.
        band: Corners of the net's interval over requests, as points of a polygon.
        line: Both ends of the net over requests: height at none, height at all.
        level: Height of no net.
        break_even: Place of the requests that pay for themselves; None where it lies beyond.
        heights: The axis of net.
        requests: All of them.
    """

    zero: float
    smallest: float
    method: Bar
    checkpoint: Bar
    seeds: list[float]
    ends: tuple[Mark, Mark]
    band: str
    line: tuple[float, float]
    level: float
    break_even: float | None
    heights: tuple[Mark, Mark]
    requests: float


def picture(verdict: PilotVerdict, smallest_worthwhile: float) -> Picture:
    """Places for a verdict."""
    found, shipped, money = verdict.decision, verdict.checkpoint.decision, verdict.money
    marks = [0.0, smallest_worthwhile, found.low, found.high, shipped.low, shipped.high, *verdict.points]
    low, high = _widened(min(marks), max(marks))

    def across(effect: float) -> float:
        return WIDTH * (effect - low) / (high - low)

    bottom, top = _widened(min(0.0, -money.once, found.net_low), max(0.0, -money.once, found.net_high))

    def up(net: float) -> float:
        return HEIGHT * (top - net) / (top - bottom)

    start = up(-money.once)
    even = found.break_even_requests
    corners = [(0.0, start), (WIDTH, up(found.net_high)), (WIDTH, up(found.net_low))]
    return Picture(
        across(0.0),
        across(smallest_worthwhile),
        _bar(found, across),
        _bar(shipped, across),
        [across(point) for point in verdict.points],
        (Mark(across(min(marks)), min(marks)), Mark(across(max(marks)), max(marks))),
        " ".join(f"{x:.1f},{y:.1f}" for x, y in corners),
        (start, up(found.net)),
        up(0.0),
        None if even is None or even > money.requests else WIDTH * even / money.requests,
        (Mark(up(found.net_low), found.net_low), Mark(up(found.net_high), found.net_high)),
        money.requests,
    )


def _bar(found: Decision, across: Callable[[float], float]) -> Bar:
    return Bar(across(found.low), across(found.effect), across(found.high))


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = MARGIN * (high - low) or 1e-3
    return low - margin, high + margin

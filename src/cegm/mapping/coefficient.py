"""The entanglement coefficient `l` over time: `l += Dl g(L)` (Algorithm 1, line 12), always clipped to a range.

A controller is a pure function of plain numbers kept in the optimizer's parameter groups, so it is saved, restored and
logged with them.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

Coefficient = Literal["constant", "progress"]
COEFFICIENT: tuple[str, ...] = get_args(Coefficient)

FAST, SLOW = 0.1, 0.01
"""Weights of the newest loss in the two running means that `progress` compares: about 10 and 100 steps of memory."""


def progress(fast: float, slow: float) -> float:
    """Signed relative progress of the smoothed loss, `(slow - fast) / slow` clipped to [-1, 1]; positive while the loss falls."""
    if slow == 0.0:
        return 0.0
    return max(-1.0, min(1.0, (slow - fast) / abs(slow)))


def smooth(mean: float | None, loss: float, weight: float) -> float:
    """One step of a running mean that starts at its first value."""
    return loss if mean is None else mean + weight * (loss - mean)


def adjust(coefficient: float, step: float, signal: float, low: float, high: float) -> float:
    """`l + Dl g`, clipped to [low, high]; a signal that is not finite changes nothing."""
    if not math.isfinite(signal):
        return coefficient
    return max(low, min(high, coefficient + step * signal))

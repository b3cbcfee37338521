"""The entanglement coefficient `l` over time: `l += Dl g(L)` (Algorithm 1, line 12), always clipped to a range.

A controller works on plain numbers kept in the optimizer's parameter groups, so it is saved, restored and logged with
them.
"""

from __future__ import annotations

import math
from typing import Any

FOLLOWS_LOSS = ("progress", "plateau")
"""Controllers that need to be told the loss of every step."""

FAST, SLOW = 0.1, 0.01
"""Weights of the newest loss in the two running means that `progress` compares: about 10 and 100 steps of memory."""

PATIENCE, THRESHOLD = 20, 1e-3
"""`plateau` acts when the smoothed loss has not fallen by this fraction for this many steps."""


INITIAL: dict[str, Any] = {"loss_fast": None, "loss_slow": None, "loss_best": None, "waited": 0, "agreement": 0.0}
"""What a group remembers for its controller, before the first step."""


def observe(group: dict[str, Any], loss: float) -> None:
    """Takes a loss into the running means of a group."""
    group["loss_fast"] = smooth(group["loss_fast"], loss, FAST)
    group["loss_slow"] = smooth(group["loss_slow"], loss, SLOW)


def advance(group: dict[str, Any]) -> None:
    """Line 12: the coefficient of the next step, from what the group remembers.

    Raises:
        ValueError: The controller follows the loss, and was never told one.
    """
    kind, (low, high) = group["coefficient"], group["coefficient_range"]
    if kind in FOLLOWS_LOSS and group["loss_fast"] is None:
        if group.get("awaits_loss"):
            return
        raise ValueError(
            f"coefficient={kind!r} follows the loss: call optimizer.observe_loss(loss) before step(), or pass a closure; "
            "in a Trainer, callbacks=[cegm.hf.LossCallback()]"
        )
    if kind == "cosine":
        group["entanglement"] = cosine(group["steps"], group["coefficient_period"], low, high)
        return
    if kind == "progress":
        signal = progress(group["loss_fast"], group["loss_slow"])
    elif kind == "plateau":
        signal, group["loss_best"], group["waited"] = plateau(group["loss_fast"], group["loss_best"], group["waited"])
    else:
        signal, group["agreement"] = agreement(float(group["agreement"])), 0.0
    group["entanglement"] = adjust(group["entanglement"], group["coefficient_step"], signal, low, high)


def progress(fast: float, slow: float) -> float:
    """Signed relative progress of the smoothed loss, `(slow - fast) / slow` clipped to [-1, 1]; positive while the loss falls."""
    if slow == 0.0:
        return 0.0
    return max(-1.0, min(1.0, (slow - fast) / abs(slow)))


def plateau(loss: float, best: float | None, waited: int) -> tuple[float, float, int]:
    """Signal -1 whenever the smoothed loss has stood still for `PATIENCE` steps, else 0: average longer when noise rules.

    Args:
        loss: Smoothed loss of this step.
        best: Lowest one that counted as an improvement; None before the first.
        waited: Steps since then, or since the last signal.

    Returns:
        Signal, best and waited after this step.
    """
    if best is None or loss < best - THRESHOLD * abs(best):
        return 0.0, loss, 0
    return (-1.0, best, 0) if waited + 1 >= PATIENCE else (0.0, best, waited + 1)


def cosine(step: int, period: int, low: float, high: float) -> float:
    """From `high` at step 0 to `low` at step `period` along half a cosine, then constant; no feedback."""
    return low + (high - low) * (1.0 + math.cos(math.pi * min(step, period) / period)) / 2.0


def agreement(product: float) -> float:
    """Sign of the inner product of the new gradient with the last mapped gradient; 0 for none or a non-finite one.

    Positive: the last direction still points downhill, so the newest gradient can be trusted more. It is the sign of the
    hypergradient of the learning rate along the mapped gradient (arXiv 1703.04782).
    """
    return math.copysign(1.0, product) if math.isfinite(product) and product != 0.0 else 0.0


def smooth(mean: float | None, loss: float, weight: float) -> float:
    """One step of a running mean that starts at its first value."""
    return loss if mean is None else mean + weight * (loss - mean)


def adjust(coefficient: float, step: float, signal: float, low: float, high: float) -> float:
    """`l + Dl g`, clipped to [low, high]; a signal that is not finite changes nothing."""
    if not math.isfinite(signal):
        return coefficient
    return max(low, min(high, coefficient + step * signal))

"""Clipping of the raw gradient, and a warning where it starves an update that is normalised afterwards.

All gradients together are multiplied by one factor, `max_grad_norm` over their norm, before the optimizer sees them. A
normalised update (polar factor, Adam's ratio) does not depend on that factor, with two exceptions that look like a
training run that has silently come to a stand:

* the momentum does not forget the factor. Where every step is clipped hard, all steps enter it at one size, and the
  first ones that are not clipped any more count for little until the others have faded;
* the guard `eps` in the denominator. Where a clipped gradient falls far enough below it, the update shrinks with the
  gradient.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from cegm.auxiliary import ADAMW_EPS
from cegm.mapping.normalize import POLAR_STEPS, QUINTIC
from cegm.sharding import whole

SMALL = 0.01
PERSISTENT = 50
"""Clipping to less than a hundredth is told when it lasts for fifty steps."""


POLAR_LIFT = QUINTIC[0] ** POLAR_STEPS
"""The polar iteration multiplies a small singular value by this (485), so it hides a norm that far below `eps`."""


def policy(max_grad_norm: float) -> str:
    """What happens to the raw gradient, in words."""
    if max_grad_norm <= 0:
        return "none: the optimizer sees raw gradients (max_grad_norm 0)"
    return f"raw gradients of all parameters together to norm {max_grad_norm:g}, before momentum and normalisation"


class ClipWatch:
    """Follows the clip factor of a run and says, once each, where it does harm."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=PERSISTENT)
        self._told: set[str] = set()

    def check(self, factor: float, norm: float, groups: Iterable[dict[str, Any]]) -> str | None:
        """A warning in one line, or None, for the factor of a step's clipping, in (0, 1], and the norm before it."""
        self._recent.append(factor)
        if factor >= SMALL:
            return None
        starved = [] if "starved" in self._told else starving(groups)
        if starved:
            self._told.add("starved")
            return (
                f"clipping multiplied the gradient by {factor:.1e}, and {len(starved)} weights, the first of shape "
                f"{'x'.join(map(str, starved[0].shape))}, fell below what the optimizer's eps lets through: their update stalls. "
                f"Set max_grad_norm to about the usual gradient norm, {norm:.2g}, or to 0"
            )
        lasting = len(self._recent) == PERSISTENT and max(self._recent) < SMALL
        if not lasting or "lasting" in self._told:
            return None
        self._told.add("lasting")
        return (
            f"all of the last {PERSISTENT} gradients were clipped to less than {SMALL:g} of their size, the last to "
            f"{factor:.1e}. The size of a normalised update does not depend on that, but its momentum takes every step at one "
            f"size and follows late when gradients become small. Set max_grad_norm to about the usual norm, {norm:.2g}, or to 0"
        )


def starving(groups: Iterable[dict[str, Any]]) -> list[Tensor]:
    """Parameters whose gradient is not zero, but so small that the `eps` of their update decides its size.

    Matrices that are normalised whole compare their Frobenius norm with `eps`, less `POLAR_LIFT` for the polar factor,
    AdamW the root mean square of the entries with its own. Updates that are not normalised shrink with any gradient and
    are left out.
    """
    graded = [(group, p) for group in groups for p in group["params"] if p.grad is not None]
    if not graded:
        return []
    # In float64, where squares of what float32 can hold do not vanish.
    norms = whole(torch.stack([torch.linalg.vector_norm(p.grad, dtype=torch.float64) for _, p in graded])).tolist()
    return [p for (group, p), norm in zip(graded, norms, strict=True) if 0.0 < norm < _least_norm(group, p)]


def _least_norm(group: dict[str, Any], parameter: Tensor) -> float:
    """Norm of a gradient below which the update of this parameter shrinks with it."""
    normalize = group.get("normalize") if group["role"] == "matrix" else None
    if normalize == "none":
        return 0.0
    if normalize is not None:
        return float(group["eps"]) / (POLAR_LIFT if normalize in ("polar", "product") else 1.0)
    # The groups that CEGM leaves to AdamW carry the `eps` of its matrices, which is not the one in use there.
    entry = ADAMW_EPS if "normalize" in group else float(group.get("eps", ADAMW_EPS))
    return entry * math.sqrt(parameter.numel())

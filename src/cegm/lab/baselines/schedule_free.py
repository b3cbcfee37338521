"""Schedule-free AdamW (arXiv 2405.15682, the implementation of `schedulefree`): an average of iterates in place of a schedule."""

from __future__ import annotations

import schedulefree
from torch import nn
from typing_extensions import Unpack

from cegm.assignment import table
from cegm.lab.baselines.paired import Shared, grouped


class ScheduleFreeAdamW(schedulefree.AdamWScheduleFree):  # type: ignore[misc]
    """`schedulefree.AdamWScheduleFree` on every parameter, with the roles of `cegm.assignment` as groups.

    It wants a constant learning rate after warm-up, and `train()` and `eval()` around steps and evaluations; a Hugging
    Face trainer calls both. It starts in training mode.

    Args:
        model: The model.
        lr: Learning rate of the linear layers' matrices.
        betas: Interpolation and second moment, of the matrices.
        **shared: See `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 2.5e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        **shared: Unpack[Shared],
    ) -> None:
        self.assignments, matrices, rest = grouped(model, lr, **shared)
        super().__init__([{**group, "betas": betas} for group in matrices] + rest, lr=lr)
        self.train()

    def summary(self) -> str:
        """The group table."""
        return table(self.assignments)

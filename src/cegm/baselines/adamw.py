"""AdamW (torch's own) with the groups of the comparison: the default everywhere, and the bar that is easiest to clear."""

from __future__ import annotations

import torch
from torch import nn
from typing_extensions import Unpack

from cegm.baselines.paired import Shared, grouped
from cegm.groups import table


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` on every parameter, with the roles of `cegm.groups` as groups.

    Args:
        model: The model.
        lr: Learning rate of the linear layers' matrices.
        betas: Betas of the matrices.
        **shared: See `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        **shared: Unpack[Shared],
    ) -> None:
        self.assignments, matrices, rest = grouped(model, lr, **shared)
        super().__init__([{**group, "betas": betas} for group in matrices] + rest, lr=lr)

    def summary(self) -> str:
        """The group table."""
        return table(self.assignments)

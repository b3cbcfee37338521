"""AdamW (torch's own) with the groups of the comparison: the default everywhere, and the bar that is easiest to clear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cegm.baselines.paired import rest_of
from cegm.groups import Role, assign, table


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` on every parameter, with the roles of `cegm.groups` as groups.

    Args:
        model: The model.
        lr: Learning rate of the linear layers' matrices.
        weight_decay: Decoupled weight decay of the matrices; vectors have none.
        betas: Betas of the matrices.
        aux_lr: Learning rate of embeddings, head and vectors; None: `lr`.
        aux_betas: Their betas.
        aux_weight_decay: Weight decay of embeddings and head; None: `weight_decay`.
        group_patterns: As in `CEGM`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-4,
        *,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        aux_lr: float | None = None,
        aux_betas: tuple[float, float] = (0.9, 0.95),
        aux_weight_decay: float | None = None,
        group_patterns: Sequence[tuple[str, Role]] = (),
    ) -> None:
        self.assignments = assign(model, group_patterns)
        matrices = [a.parameter for a in self.assignments if a.role == "matrix"]
        own = {"params": matrices, "role": "matrix", "lr": lr, "betas": betas, "weight_decay": weight_decay}
        rest = rest_of(self.assignments, lr, weight_decay, aux_lr, aux_betas, aux_weight_decay)
        super().__init__([*([own] if matrices else []), *rest], lr=lr)

    def summary(self) -> str:
        """The group table."""
        return table(self.assignments)

"""AdamW (torch's own) with the groups of the comparison: the default everywhere, and the bar that is easiest to clear."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

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
        decay = weight_decay if aux_weight_decay is None else aux_weight_decay
        aux = {"role": "adamw", "lr": lr if aux_lr is None else aux_lr, "betas": aux_betas}
        matrices = [a.parameter for a in self.assignments if a.role == "matrix"]
        others = [a.parameter for a in self.assignments if a.role == "adamw"]
        groups = [
            {"params": matrices, "role": "matrix", "lr": lr, "betas": betas, "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim > 1], **aux, "weight_decay": decay},
            {"params": [p for p in others if p.ndim < 2], **aux, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], lr=lr)

    def summary(self) -> str:
        """The group table."""
        return table(self.assignments)

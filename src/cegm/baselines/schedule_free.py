"""Schedule-free AdamW (arXiv 2405.15682, the implementation of `schedulefree`): an average of iterates in place of a schedule."""

from __future__ import annotations

from collections.abc import Sequence

import schedulefree
from torch import nn

from cegm.baselines.paired import rest_of
from cegm.groups import Role, assign, table


class ScheduleFreeAdamW(schedulefree.AdamWScheduleFree):  # type: ignore[misc]
    """`schedulefree.AdamWScheduleFree` on every parameter, with the roles of `cegm.groups` as groups.

    It wants a constant learning rate after warm-up, and `train()` and `eval()` around steps and evaluations; a Hugging
    Face trainer calls both. It starts in training mode.

    Args:
        model: The model.
        lr: Learning rate of the linear layers' matrices.
        weight_decay: Weight decay of the matrices, at the point where gradients are taken; vectors have none.
        betas: Interpolation and second moment, of the matrices.
        aux_lr: Learning rate of embeddings, head and vectors; None: `lr`.
        aux_betas: Their betas.
        aux_weight_decay: Weight decay of embeddings and head; None: `weight_decay`.
        group_patterns: As in `CEGM`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 2.5e-3,
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
        self.train()

    def summary(self) -> str:
        """The group table."""
        return table(self.assignments)

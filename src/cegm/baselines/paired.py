"""A library's optimizer for the matrices and torch's AdamW for the rest, behind one `Optimizer`.

Every peer is built on this, so that two methods differ in the update of the matrices and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from cegm.groups import Assignment, Role, assign, table


def matrices_of(assignments: Sequence[Assignment], method: str) -> list[Tensor]:
    """The parameters that a method for matrices updates.

    Raises:
        ValueError: There is none.
    """
    matrices = [a.parameter for a in assignments if a.role == "matrix"]
    if not matrices:
        raise ValueError(f"the model has no matrix for {method} (no trainable linear layer); use AdamW for it")
    return matrices


def rest_of(
    assignments: Sequence[Assignment],
    lr: float,
    weight_decay: float,
    aux_lr: float | None,
    aux_betas: tuple[float, float],
    aux_weight_decay: float | None,
) -> list[dict[str, Any]]:
    """AdamW's groups: embeddings and head, and apart from them the vectors, which have no weight decay.

    Args:
        assignments: All parameters.
        lr: Of the matrices; what `aux_lr` is when left at None.
        weight_decay: Of the matrices; what `aux_weight_decay` is when left at None.
        aux_lr: Learning rate.
        aux_betas: Betas.
        aux_weight_decay: Weight decay.
    """
    others = [a.parameter for a in assignments if a.role == "adamw"]
    decay = weight_decay if aux_weight_decay is None else aux_weight_decay
    shared = {"role": "adamw", "lr": lr if aux_lr is None else aux_lr, "betas": aux_betas}
    groups = [
        {"params": [p for p in others if p.ndim > 1], **shared, "weight_decay": decay},
        {"params": [p for p in others if p.ndim < 2], **shared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Paired(Optimizer):
    """Two optimizers that share the list of groups and the state that schedulers and checkpoints see.

    Args:
        model: The model.
        kind: Class of the optimizer of the matrices.
        own: Its own options.
        lr: Learning rate of the matrices.
        weight_decay: Decoupled weight decay of the matrices.
        aux_lr: Learning rate of embeddings, head and vectors; None: `lr`.
        aux_betas: Their betas.
        aux_weight_decay: Weight decay of embeddings and head; None: `weight_decay`.
        group_patterns: As in `CEGM`.
    """

    def __init__(
        self,
        model: nn.Module,
        kind: Callable[..., Optimizer],
        own: dict[str, Any],
        *,
        lr: float,
        weight_decay: float,
        aux_lr: float | None,
        aux_betas: tuple[float, float],
        aux_weight_decay: float | None,
        group_patterns: Sequence[tuple[str, Role]],
    ) -> None:
        self.assignments = assign(model, group_patterns)
        matrices = matrices_of(self.assignments, type(self).__name__)
        self._first = kind([{"params": matrices, "role": "matrix", "lr": lr, "weight_decay": weight_decay}], **own)
        rest = rest_of(self.assignments, lr, weight_decay, aux_lr, aux_betas, aux_weight_decay)
        self._rest = torch.optim.AdamW(rest, lr=lr) if rest else None
        super().__init__([*self._first.param_groups, *(self._rest.param_groups if self._rest else [])], {})
        self._share()

    def _share(self) -> None:
        for part, role in ((self._first, "matrix"), (self._rest, "adamw")):
            if part is not None:
                part.param_groups = [group for group in self.param_groups if group["role"] == role]
                part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both parts."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.step_matrices()
        if self._rest is not None:
            self._rest.step()
        return loss

    def step_matrices(self) -> None:
        """The update of the matrices."""
        self._first.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads as torch does."""
        super().load_state_dict(state_dict)
        self._share()

    def summary(self) -> str:
        """The group table."""
        return table(self.assignments)

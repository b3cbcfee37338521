"""What every peer shares: its groups, and a way to let a library's optimizer for matrices work beside torch's AdamW.

Two methods differ in the update of the matrices and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypedDict

import torch
from torch import nn
from torch.optim.optimizer import Optimizer
from typing_extensions import Unpack

from cegm.assignment import Assignment, Role, table
from cegm.roles import assign
from cegm.sharding import is_sharded
from cegm.state import WholeState, own_attributes

OF_FIRST = "of_first"
"""In a copy or a pickle: attributes of the optimizer of the matrices."""


class Shared(TypedDict, total=False):
    """Options that every peer takes.

    Attributes:
        weight_decay: Decoupled weight decay of the matrices, .1 unless given; vectors have none.
        aux_lr: Learning rate of embeddings, head and vectors; None: `lr`.
        aux_betas: Their betas, (.9, .95) unless given.
        aux_weight_decay: Weight decay of embeddings and head; None: `weight_decay`.
        group_patterns: As in `CEGM`.
    """

    weight_decay: float
    aux_lr: float | None
    aux_betas: tuple[float, float]
    aux_weight_decay: float | None
    group_patterns: Sequence[tuple[str, Role]]


def grouped(
    model: nn.Module, lr: float, takes_experts: bool = True, **shared: Unpack[Shared]
) -> tuple[list[Assignment], list[dict[str, Any]], list[dict[str, Any]]]:
    """All trainable parameters of a model by role.

    Args:
        model: The model.
        lr: Learning rate of the matrices.
        takes_experts: Whether batches of matrices, the experts of a mixture, are matrices to the method.
        **shared: See `Shared`.

    Returns:
        The assignments; groups of the matrices; AdamW's groups. What has no weight decay stands apart in both.
    """
    assignments = assign(model, shared.get("group_patterns", ()))
    if not takes_experts:
        assignments = [a if a.experts == 1 else replace(a, role="adamw", reason="experts") for a in assignments]
    weight_decay, aux_lr, aux_decay = (
        shared.get("weight_decay", 0.1),
        shared.get("aux_lr"),
        shared.get("aux_weight_decay"),
    )
    first = {"role": "matrix", "lr": lr}
    aux = {"role": "adamw", "lr": lr if aux_lr is None else aux_lr, "betas": shared.get("aux_betas", (0.9, 0.95))}
    matrices = _by_decay(assignments, first, weight_decay)
    return assignments, matrices, _by_decay(assignments, aux, weight_decay if aux_decay is None else aux_decay)


def _by_decay(assignments: Sequence[Assignment], group: dict[str, Any], weight_decay: float) -> list[dict[str, Any]]:
    """The weights of one role as a group with weight decay and one without, as far as there are any."""
    parts = [
        [a.parameter for a in assignments if a.role == group["role"] and a.decays == decays] for decays in (True, False)
    ]
    decays = (weight_decay, 0.0)
    return [{"params": p, **group, "weight_decay": d} for p, d in zip(parts, decays, strict=True) if p]


class Paired(WholeState):
    """Two optimizers that share the list of groups and the state that schedulers and checkpoints see.

    Args:
        model: The model.
        kind: Class of the optimizer of the matrices.
        own: Its own options.
        lr: Learning rate of the matrices.
        **shared: See `Shared`.

    Raises:
        ValueError: The model has no matrix, or is sharded.
    """

    def __init__(
        self,
        model: nn.Module,
        kind: Callable[..., Optimizer],
        own: dict[str, Any],
        lr: float,
        **shared: Unpack[Shared],
    ) -> None:
        self.assignments, first, rest = grouped(model, lr, takes_experts=False, **shared)
        if not first:
            method = type(self).__name__
            raise ValueError(f"the model has no matrix for {method} (no trainable linear layer); use AdamW for it")
        for assignment in self.assignments:
            if is_sharded(assignment.parameter):
                raise ValueError(f"{assignment.name} is sharded; {type(self).__name__} needs whole matrices, use DDP")
        self._first = kind(first, **own)
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

    def __getstate__(self) -> dict[str, Any]:
        """As of every optimizer here, with what the library's keeps beside groups and state, which its own copies lose."""
        return {**super().__getstate__(), OF_FIRST: own_attributes(self._first)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """After a copy or a load both parts share what torch has put in place."""
        of_first = state.pop(OF_FIRST, {})
        super().__setstate__(state)
        vars(self._first).update(of_first)
        self._share()

    def summary(self) -> str:
        """The group table."""
        return table(self.assignments)

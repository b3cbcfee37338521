"""Elastic weight consolidation (arXiv 1612.00796): AdamW on the loss and a penalty on leaving the beginning, weighed by a Fisher diagonal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from cegm.assignment import Assignment
from cegm.home import look
from cegm.lab.baselines.anchored import BEGINNING, AnchoredAdamW
from cegm.lab.baselines.paired import Shared
from cegm.sharding import is_sharded

FISHER = "fisher"


class EWC(AnchoredAdamW):
    """AdamW on `loss + k/2 sum_i F_i (w_i - w0_i)^2`, over all trainable weights.

    With `F` per token, the penalty is to second order `k` times what the model has come to say differently about a token of
    the text that `F` is of, in nats.

    Args:
        model: The model.
        lr: Learning rate of the linear layers' matrices.
        betas: Betas of the matrices.
        penalty: `k`, >= 0; 0 is AdamW.
        retain: `F` of every trainable weight by name, as `diagonal_fisher` gathers it; None where nothing is known yet: then
            all weights count alike, `F = 1`.
        **shared: See `Shared`.

    Raises:
        ValueError: `retain` lacks a weight or has one of another shape.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        penalty: float = 30.0,
        retain: Mapping[str, Tensor] | None = None,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, lr, betas, {"penalty": penalty}, **shared)
        self._fisher: dict[Tensor, Tensor] = {}
        if retain is not None:
            self._fisher = {a.parameter: _fitting(retain.get(a.name), a) for a in self.assignments}

    def begin(self, parameter: Tensor, state: dict[str, Any]) -> None:
        """Keeps the Fisher diagonal in the state, where checkpoints find it."""
        if parameter in self._fisher:
            state[FISHER] = self._fisher.pop(parameter).to(parameter.device)

    def hold(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Adds the gradient of the penalty."""
        assert parameter.grad is not None
        deviation = parameter.detach() - state[BEGINNING]
        parameter.grad.add_(deviation * state.get(FISHER, 1.0), alpha=group["penalty"])


def _fitting(found: Tensor | None, assignment: Assignment) -> Tensor:
    if found is None or found.shape != assignment.parameter.shape:
        raise ValueError(f"the Fisher diagonal does not fit {assignment.name}; gather it of this model")
    return found


def diagonal_fisher(model: nn.Module, rows: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The diagonal of the Fisher matrix of all trainable weights per token, by name.

    One backward pass per row, of labels that the model draws itself. These are independent of each other given the row, so
    the squared gradient of a row is in the mean the sum of those of its tokens.

    Args:
        model: Before training; its weights, gradients and mode stay as they are.
        rows: Token ids of text that it knows, shape (rows, length).
        seed: Of the drawn labels.

    Raises:
        ValueError: The model is sharded.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if any(is_sharded(p) for p in parameters.values()):
        raise ValueError("the model is sharded, and its Fisher diagonal is gathered of whole weights; use sharding=ddp")
    kept, was_training = {name: p.grad for name, p in parameters.items()}, model.training
    found = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()}
    generator, tokens = torch.Generator().manual_seed(seed), 0
    model.eval()
    for row in rows.split(1):
        for parameter in parameters.values():
            parameter.grad = None
        tokens += look(model, row, generator)
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                found[name] += parameter.grad.float().square()
    model.train(was_training)
    for name, parameter in parameters.items():
        parameter.grad = kept[name]
    return {name: each / tokens for name, each in found.items()}

"""Entanglement layers: where one weight meets its contexts (the inputs) and its demands (the output gradients).

Both are at hand at one moment only, in the backward pass of the layer. `_Tap` sits there: the identity in the forward
pass, and in the backward pass it hands the statistics of the micro-batch to autograd as the *gradients of carriers*,
leaf tensors that take part in nothing else. Autograd then does the bookkeeping that a hook with side effects gets
wrong: micro-batches sum, a layer called twice sums, activation checkpointing recomputes without counting twice,
`no_grad` records nothing, and `torch.compile` sees a pure function.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cegm.context.aggregate import weighted_gram
from cegm.context.scores import Scores, token_weights


class _Tap(torch.autograd.Function):
    """Identity on a layer's output whose backward pass yields the context statistics of the micro-batch."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,  # (..., outputs)
        contexts: Tensor,  # (..., inputs)
        context_carrier: Tensor | None,  # (heads, width, width)
        demand_carrier: Tensor | None,
        mass_carrier: Tensor,  # ()
        seed: Tensor,  # ()
        scores: Scores,
    ) -> Tensor:
        # The heads are plain numbers: a carrier itself need not be kept for the backward pass.
        ctx.context_heads = None if context_carrier is None else context_carrier.shape[0]
        ctx.demand_heads = None if demand_carrier is None else demand_carrier.shape[0]
        ctx.scores = scores
        ctx.save_for_backward(contexts if context_carrier is not None else None, seed)
        # A view would forbid in-place operations on the output further down.
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        contexts, seed = ctx.saved_tensors
        demands = gradient.flatten(0, -2).float()  # (tokens, outputs)
        weights = token_weights(ctx.scores, demands, seed)  # (tokens,)
        context_sum = demand_sum = None
        if ctx.context_heads is not None:
            context_sum = weighted_gram(contexts.flatten(0, -2).float(), weights, ctx.context_heads)
        if ctx.demand_heads is not None:
            demand_sum = weighted_gram(demands, weights, ctx.demand_heads)
        return gradient, None, context_sum, demand_sum, weights.sum(), None, None


def _carrier(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A leaf that needs a gradient and holds no memory of its own: one zero, seen `shape` times."""
    return torch.zeros((), device=device).expand(shape).requires_grad_()


class EntanglementLayer:
    """Gathers the contexts and demands of one weight during the backward passes of a step.

    Nothing is recorded unless `recording` is set, the module is in training mode and gradients are on.

    Args:
        name: Name of the weight, for messages.
        modules: Every module that holds this weight; more than one when the weight is tied.
        device: Where the weight lives.
        context_shape: (heads, width, width) of the context matrix, or None when only demands are wanted.
        demand_shape: The same for the output gradients.
        scores: Which context score weighs the tokens.

    Attributes:
        recording: Whether backward passes are recorded now.
        seed: 0-D int64 tensor that decides the draw of `random` scores; its owner sets it before each recorded step.
    """

    def __init__(
        self,
        name: str,
        modules: list[nn.Module],
        device: torch.device,
        context_shape: tuple[int, int, int] | None,
        demand_shape: tuple[int, int, int] | None,
        scores: Scores,
    ) -> None:
        self.name = name
        self.scores: Scores = scores
        self.recording = False
        self.context_carrier = None if context_shape is None else _carrier(context_shape, device)
        self.demand_carrier = None if demand_shape is None else _carrier(demand_shape, device)
        self.mass_carrier = _carrier((), device)
        self.seed = torch.tensor(0, dtype=torch.int64, device=device)
        for module in modules:
            module.register_forward_hook(self._tap)

    def _tap(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not (self.recording and module.training and torch.is_grad_enabled() and output.requires_grad):
            return None
        tapped: Tensor = _Tap.apply(  # type: ignore[no-untyped-call]
            output, inputs[0], self.context_carrier, self.demand_carrier, self.mass_carrier, self.seed, self.scores
        )
        return tapped

    def carriers(self) -> list[Tensor]:
        """The leaves whose gradients hold what was recorded: numerators first, the denominator last."""
        return [c for c in (self.context_carrier, self.demand_carrier, self.mass_carrier) if c is not None]

    def collect(self) -> tuple[Tensor | None, Tensor | None] | None:
        """The weighted means since the last `clear`: (contexts, demands), or None if no backward pass came by."""
        mass = self.mass_carrier.grad
        if mass is None:
            return None
        mass = mass.clamp_min(torch.finfo(mass.dtype).tiny)
        means = [
            None if c is None or c.grad is None else c.grad / mass for c in (self.context_carrier, self.demand_carrier)
        ]
        return means[0], means[1]

    def clear(self) -> None:
        """Forgets what was recorded since the last `clear`."""
        for carrier in self.carriers():
            carrier.grad = None

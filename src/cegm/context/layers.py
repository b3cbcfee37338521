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
from torch import Tensor

from cegm.context.hierarchy import Sharers
from cegm.context.patches import Geometry
from cegm.context.scores import DRAWN, SEED_STRIDE
from cegm.context.statistics import Recipe, score, sums
from cegm.context.transforms import is_batched
from cegm.options import Scores

Shapes = tuple[tuple[int, int, int] | None, tuple[int, int, int] | None]
"""(heads, width, width) of a context matrix and of a demand matrix; None where one is not wanted."""


class _Tap(torch.autograd.Function):
    """Identity on a layer's output whose backward pass yields the context statistics of the micro-batch."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,  # (..., outputs)
        contexts: Tensor,  # (..., inputs)
        seed: Tensor,  # ()
        guide: Tensor | None,
        walk: Geometry | None,
        recipe: Recipe,
        *carriers: Tensor | None,
    ) -> Tensor:
        ctx.recipe, ctx.walk = recipe, walk
        ctx.save_for_backward(contexts if recipe.needs_contexts else None, seed, guide)
        # A view would forbid in-place operations on the output further down.
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        contexts, seed, guide = ctx.saved_tensors
        if is_batched(gradient):
            return gradient, *[None] * (len(ctx.needs_input_grad) - 1)
        with torch.autocast(gradient.device.type, enabled=False):  # a backward pass may run inside the caller's
            rows, demands, weights = score(ctx.recipe, contexts, gradient, ctx.walk, seed, guide)
            statistics = sums(ctx.recipe, rows, demands, weights)
        return gradient, None, None, None, None, None, *statistics


def _carrier(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A leaf that needs a gradient and holds no memory of its own: one zero, seen `shape` times."""
    return torch.zeros((), device=device).expand(shape).requires_grad_()


class EntanglementLayer:
    """The contexts and demands of one matrix, gathered during the backward passes of a step.

    Args:
        name: Name of the weight, for messages.
        device: Of the weight.
        inputs: Width of a context.
        context_shape: (heads, width, width) of the context matrix, or None when only demands are wanted.
        demand_shape: The same for the output gradients.
        scores: Which context score weighs the tokens.
        exclude_sink: Whether the first position of a row carries no weight.
        sharers: Layers that share its scores; None when it has its own.

    Attributes:
        seed: 0-D int64 tensor that decides the draws of the control scores; its owner sets it before each recorded step,
            and each forward pass of the step takes the next one.
        guide: What `attention` and `alignment` scores compare with; its owner sets it before each recorded step.
        is_lost: Something could not be seen since the last `clear`, so that what was recorded is not the whole.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        inputs: int,
        context_shape: tuple[int, int, int] | None,
        demand_shape: tuple[int, int, int] | None,
        scores: Scores,
        exclude_sink: bool = False,
        sharers: Sharers | None = None,
    ) -> None:
        self.name, self.inputs = name, inputs
        self.is_lost = False
        heads = [0 if shape is None else shape[0] for shape in (context_shape, demand_shape)]
        self.recipe = Recipe(heads[0], heads[1], scores, exclude_sink)
        self.context_carrier = None if context_shape is None else _carrier(context_shape, device)
        self.demand_carrier = None if demand_shape is None else _carrier(demand_shape, device)
        self.summary_carrier = _carrier((inputs,), device) if self.recipe.needs_summary else None
        self.mass_carrier = _carrier((), device)
        self.seed = torch.tensor(0, dtype=torch.int64, device=device)
        self.guide: Tensor | None = None
        self.sharers = sharers
        if sharers is not None:
            sharers.layers.append(self)

    def tap(self, output: Tensor, contexts: Tensor, walk: Geometry | None) -> Tensor:
        """The output, whose backward pass will gather what the layer saw."""
        if self.sharers is not None:
            shared: Tensor = self.sharers.tap(self, output, contexts, walk)
            return shared
        tapped: Tensor = _Tap.apply(  # type: ignore[no-untyped-call]
            output, contexts, self.next_seed(), self.guide, walk, self.recipe, *self.all_carriers()
        )
        return tapped

    def next_seed(self) -> Tensor:
        """Of one forward pass; without draws always the same tensor, so that nothing is computed."""
        if self.recipe.scores not in DRAWN:
            return self.seed
        drawn = self.seed.clone()
        self.seed += SEED_STRIDE
        return drawn

    def turned(self, inputs: int, shapes: Shapes) -> EntanglementLayer:
        """The layer of the same matrix stored the other way round."""
        assert self.sharers is None
        layer = EntanglementLayer(
            self.name, self.seed.device, inputs, *shapes, self.recipe.scores, self.recipe.exclude_sink
        )
        layer.seed.copy_(self.seed)
        return layer

    def all_carriers(self) -> tuple[Tensor | None, ...]:
        """Places of context, demand, summary and mass, in the order of `sums`; None where one is not wanted."""
        return self.context_carrier, self.demand_carrier, self.summary_carrier, self.mass_carrier

    def carriers(self) -> list[Tensor]:
        """The leaves whose gradients hold what was recorded: numerators first, the denominator last."""
        return [carrier for carrier in self.all_carriers() if carrier is not None]

    @property
    def recorded(self) -> bool:
        """Whether a backward pass came by since the last `clear`."""
        return self.mass_carrier.grad is not None and not self.is_lost

    def collect(self) -> dict[str, Tensor] | None:
        """The weighted means since the last `clear`, by `context`, `demand` and `summary`; None if they were not, or not all, recorded."""
        mass = self.mass_carrier.grad
        if mass is None or self.is_lost:
            return None
        mass = mass.clamp_min(torch.finfo(mass.dtype).tiny)
        numerators = zip(("context", "demand", "summary"), self.all_carriers()[:3], strict=True)
        return {side: c.grad / mass for side, c in numerators if c is not None and c.grad is not None}

    def clear(self) -> None:
        """Forgets what was recorded since the last `clear`."""
        self.is_lost = False
        for carrier in self.carriers():
            carrier.grad = None

    def move(self, device: torch.device) -> None:
        """Follows its weight to another device; nothing is recorded there yet."""
        carriers = [None if each is None else _carrier(tuple(each.shape), device) for each in self.all_carriers()]
        self.context_carrier, self.demand_carrier, self.summary_carrier, mass_carrier = carriers
        assert mass_carrier is not None
        self.mass_carrier = mass_carrier
        self.seed = self.seed.to(device)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has nothing to compare with."""
        return {**self.__dict__, "guide": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy has no gradients, so it has nothing recorded either."""
        self.__dict__.update(state)
        self.clear()

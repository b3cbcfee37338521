"""Entanglement layers: where one weight meets its contexts (the inputs) and its demands (the output gradients).

Both are at hand at one moment only, in the backward pass of the layer. `_Tap` sits there: the identity in the forward
pass, and in the backward pass it hands the statistics of the micro-batch to autograd as the *gradients of carriers*,
leaf tensors that take part in nothing else. Autograd then does the bookkeeping that a hook with side effects gets
wrong: micro-batches sum, a layer called twice sums, activation checkpointing recomputes without counting twice,
`no_grad` records nothing, and `torch.compile` sees a pure function.

Layers that share scores (`Sharers`) need all of them before the first statistic can be formed. Their taps only show
what they see; a node that every one of them depends on runs after the last of them, and forms the statistics there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cegm.context.aggregate import weighted_gram
from cegm.context.patches import Geometry, context_rows, demand_rows, geometry
from cegm.context.scores import NEEDS_CONTEXTS, Scores, reached_tokens, token_weights


class Recipe(NamedTuple):
    """What is formed from a micro-batch.

    Attributes:
        context_heads: Blocks of the context matrix; 0 when it is not wanted.
        demand_heads: Blocks of the demand matrix; 0 when it is not wanted.
        scores: Which context score weighs the tokens.
        exclude_sink: Whether the first position of a row is left out.
    """

    context_heads: int
    demand_heads: int
    scores: Scores
    exclude_sink: bool

    @property
    def needs_contexts(self) -> bool:
        """Whether the contexts have to be kept for the backward pass."""
        return self.context_heads > 0 or self.scores in NEEDS_CONTEXTS

    @property
    def needs_summary(self) -> bool:
        """Whether the weighted mean of the contexts is gathered too."""
        return self.scores == "attention"


def score(
    recipe: Recipe, contexts: Tensor | None, gradient: Tensor, walk: Geometry | None, seed: Tensor, guide: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Rows and weights of one micro-batch: contexts (tokens, inputs) or None, demands (tokens, outputs), weights (tokens,)."""
    rows = None if contexts is None else context_rows(contexts, walk)
    demands = demand_rows(gradient, walk)
    reached = reached_tokens(demands, recipe.exclude_sink)
    demands = demands.flatten(0, -2).float()
    return rows, demands, token_weights(recipe.scores, rows, demands, reached, seed, guide)


def sums(recipe: Recipe, contexts: Tensor | None, demands: Tensor, weights: Tensor) -> list[Tensor | None]:
    """Numerators and denominator, in the order of `EntanglementLayer.all_carriers`: context, demand, summary, mass."""
    seen = contexts if contexts is not None else demands  # read only where the recipe needs contexts
    return [
        weighted_gram(seen, weights, recipe.context_heads) if recipe.context_heads else None,
        weighted_gram(demands, weights, recipe.demand_heads) if recipe.demand_heads else None,
        weights @ seen if recipe.needs_summary else None,
        weights.sum(),
    ]


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
        rows, demands, weights = score(ctx.recipe, contexts, gradient, ctx.walk, seed, guide)
        return gradient, None, None, None, None, None, *sums(ctx.recipe, rows, demands, weights)


class _Show(torch.autograd.Function):
    """Identity on a layer's output whose backward pass shows contexts and demands to the layers that share its scores."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, contexts: Tensor, slot: Tensor, walk: Geometry | None, layer: EntanglementLayer
    ) -> Tensor:
        ctx.layer, ctx.walk = layer, walk
        ctx.save_for_backward(contexts if layer.recipe.needs_contexts else None)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (contexts,), layer = gradients, ctx.saved_tensors, ctx.layer
        assert layer.sharers is not None
        layer.sharers.shown.append((layer, *score(layer.recipe, contexts, gradient, ctx.walk, layer.seed, layer.guide)))
        return gradient, None, layer.seed.new_zeros((), dtype=torch.float32), None, None


class _Gather(torch.autograd.Function):
    """Its backward pass runs after those of all taps that hold its slot, and yields the statistics of all their layers."""

    @staticmethod
    def forward(ctx: Any, sharers: Sharers, *carriers: Tensor) -> Tensor:
        ctx.sharers = sharers
        return carriers[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.sharers.gather()


class Sharers:
    """Layers that share one set of scores: the mean of their log-scores (hierarchy `block` or `model`).

    Tokens are matched by position, so only layers that were fed equally many tokens share; a mixture's experts, which
    see some tokens each, share with nobody. On steps that record, the output gradients of all sharers are kept until
    the backward pass has left the last of them.

    Attributes:
        shown: (layer, contexts, demands, weights) of the backward pass under way.
    """

    def __init__(self) -> None:
        self.layers: list[EntanglementLayer] = []
        self.shown: list[tuple[EntanglementLayer, Tensor | None, Tensor, Tensor]] = []
        # What every tap depends on until a backward pass has gone through; a forward pass without one leaves it be.
        self._slot: Tensor | None = None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def tap(self, layer: EntanglementLayer, output: Tensor, contexts: Tensor, walk: Geometry | None) -> Tensor:
        """The output of `layer`, which will show what it sees."""
        if self._slot is None:
            carriers = [carrier for each in self.layers for carrier in each.carriers()]
            self._slot = _Gather.apply(self, *carriers)  # type: ignore[no-untyped-call]
        tapped: Tensor = _Show.apply(output, contexts, self._slot, walk, layer)  # type: ignore[no-untyped-call]
        return tapped

    def gather(self) -> list[Tensor | None]:
        """Gradients of all carriers of all layers, from what was shown."""
        shown, self.shown, self._slot = self.shown, [], None
        shared = self._shared_weights(shown)
        totals: dict[Tensor, Tensor] = {}
        for layer, contexts, demands, own in shown:
            weights = shared[len(own)] * (own > 0)
            for carrier, part in zip(layer.all_carriers(), sums(layer.recipe, contexts, demands, weights), strict=True):
                if carrier is not None and part is not None:
                    totals[carrier] = totals[carrier] + part if carrier in totals else part
        return [totals.get(carrier) for layer in self.layers for carrier in layer.carriers()]

    @staticmethod
    def _shared_weights(shown: Sequence[tuple[Any, Any, Any, Tensor]]) -> dict[int, Tensor]:
        """By number of tokens, `exp` of the mean log-score over the layers that reached a token, shape (tokens,)."""
        members: dict[int, list[Tensor]] = defaultdict(list)
        for *_, weights in shown:
            members[len(weights)].append(weights)
        shared = {}
        for count, rows in members.items():
            stacked = torch.stack(rows)  # (layers, tokens)
            reached = stacked > 0
            logarithms = torch.where(reached, stacked, 1.0).log().sum(dim=0)
            shared[count] = (logarithms / reached.sum(dim=0).clamp_min(1)).exp()
        return shared


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
        inputs: Width of a context.
        context_shape: (heads, width, width) of the context matrix, or None when only demands are wanted.
        demand_shape: The same for the output gradients.
        scores: Which context score weighs the tokens.
        exclude_sink: Whether the first position of a row carries no weight.
        sharers: Layers that share its scores; None when it has its own.

    Attributes:
        recording: Whether backward passes are recorded now.
        seed: 0-D int64 tensor that decides the draw of the control scores; its owner sets it before each recorded step.
        guide: What `attention` and `alignment` scores compare with; its owner sets it before each recorded step.
    """

    def __init__(
        self,
        name: str,
        modules: list[nn.Module],
        device: torch.device,
        inputs: int,
        context_shape: tuple[int, int, int] | None,
        demand_shape: tuple[int, int, int] | None,
        scores: Scores,
        exclude_sink: bool = False,
        sharers: Sharers | None = None,
    ) -> None:
        self.name = name
        self.recording = False
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
        for module in modules:
            module.register_forward_hook(self._tap)

    def _tap(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not (self.recording and module.training and torch.is_grad_enabled() and output.requires_grad):
            return None
        walk = geometry(module)
        if self.sharers is not None:
            return self.sharers.tap(self, output, inputs[0], walk)
        tapped: Tensor = _Tap.apply(  # type: ignore[no-untyped-call]
            output, inputs[0], self.seed, self.guide, walk, self.recipe, *self.all_carriers()
        )
        return tapped

    def all_carriers(self) -> tuple[Tensor | None, ...]:
        """Places of context, demand, summary and mass, in the order of `sums`; None where one is not wanted."""
        return self.context_carrier, self.demand_carrier, self.summary_carrier, self.mass_carrier

    def carriers(self) -> list[Tensor]:
        """The leaves whose gradients hold what was recorded: numerators first, the denominator last."""
        return [carrier for carrier in self.all_carriers() if carrier is not None]

    def collect(self) -> dict[str, Tensor] | None:
        """The weighted means since the last `clear`, by `context`, `demand` and `summary`; None if no backward pass came by."""
        mass = self.mass_carrier.grad
        if mass is None:
            return None
        mass = mass.clamp_min(torch.finfo(mass.dtype).tiny)
        numerators = zip(("context", "demand", "summary"), self.all_carriers()[:3], strict=True)
        return {side: c.grad / mass for side, c in numerators if c is not None and c.grad is not None}

    def clear(self) -> None:
        """Forgets what was recorded since the last `clear`."""
        for carrier in self.carriers():
            carrier.grad = None

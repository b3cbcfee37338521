"""Entanglement layers: where one weight meets its contexts (the inputs) and its demands (the output gradients).

Both are at hand at one moment only, in the backward pass of the layer. `_Tap` sits there: the identity in the forward
pass, and in the backward pass it hands the statistics of the micro-batch to autograd as the *gradients of carriers*,
leaf tensors that take part in nothing else. Autograd then does the bookkeeping that a hook with side effects gets
wrong: micro-batches sum, a layer called twice sums, activation checkpointing recomputes without counting twice,
`no_grad` records nothing, and `torch.compile` sees a pure function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cegm.context.hierarchy import Sharers
from cegm.context.patches import Geometry
from cegm.context.scores import DRAWN, SEED_STRIDE
from cegm.context.statistics import Recipe, score, sums
from cegm.context.taps import Observer
from cegm.context.transforms import in_transform, is_batched
from cegm.options import Scores
from cegm.sharding import is_sharded

NEVER_CALLED = "its layer was never called"
COMPILED = "its layer was never called, or compiled: torch.compile does not show what a forward of its own does"
RESHAPED = "its weight got another shape since"
EVALUATES = "its layer is in eval mode, where contexts are not recorded (call model.train() before training)"
TRANSFORMED = (
    "its layer was called inside torch.func, vmap, a trace or forward-mode differentiation, which show no contexts"
)
PASSED_BY = (
    "its layer was called, but showed no product with it that backward() came through "
    "(torch.autograd.grad, and torch.compile inside it, leave contexts out)"
)
NO_ROWS = (
    "its layer was fed with, or gave, what is no rows of real numbers as wide as the weight, beside it on its device"
)


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


def _has_rows(tensor: Tensor) -> bool:
    """Whether rows of a tensor can be told: of nested ones only of jagged ones, and not by a compiler."""
    if tensor.layout is torch.strided:
        return not tensor.is_nested
    return not torch.compiler.is_compiling()


class Recorder(Observer):
    """Observes one parameter and hands what it sees to the entanglement layers of the matrices in it.

    Nothing is recorded unless `recording` is set, the module is in training mode, gradients are on and the parameter is
    to have one.

    Args:
        name: Name of the parameter, for messages.
        parameter: The weight.
        layers: One per matrix that is stacked in it, in their order.
        is_plain: Whether it meets its contexts in a layer that nobody has overridden.
        transposed: It is stored (inputs, outputs), as far as is known.
        turned: What its layers record if it is stored the other way round, which its first product tells; None if that
            cannot be.

    Attributes:
        recording: Whether backward passes are recorded now.
        is_late: It came in the middle of training, and records at the next step, whenever the others do.
        trouble: Why the last call could not be recorded, for messages.
    """

    def __init__(
        self,
        name: str,
        parameter: Tensor,
        layers: Sequence[EntanglementLayer],
        is_plain: bool = True,
        transposed: bool = False,
        turned: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.name, self.parameter, self.layers = name, parameter, layers
        self._shape = parameter.shape
        self.transposed, self._is_plain = transposed, is_plain
        self._outputs = parameter.numel() // (len(layers) * layers[0].inputs)
        self._turned = turned if layers[0].sharers is None else None
        self.recording = self.is_late = False
        self.trouble = self._at_rest = NEVER_CALLED if is_plain else COMPILED
        # The gradient of a sharded weight is missing between micro-batches that are not yet summed over ranks.
        self._sees_gradients = not is_sharded(parameter)

    def listens(self, module: nn.Module) -> bool:
        """Whether a call of `module` is to be recorded."""
        is_wanted = self.recording or self._turned is not None
        if not (is_wanted and torch.is_grad_enabled() and self.parameter.requires_grad):
            return False
        if torch.compiler.is_compiling():
            return module.training
        if in_transform():
            self.trouble = TRANSFORMED
            return False
        if not module.training:
            self.trouble = EVALUATES
            return False
        if self.parameter.shape != self._shape:
            self.trouble = RESHAPED
            return False
        if not self.layers[0].is_lost:
            self.trouble = PASSED_BY
        self._follow()
        if self._was_given_up():
            self.clear()
        return True

    def see(self, output: Tensor, contexts: Tensor, walk: Geometry | None, part: int) -> Tensor | None:
        """The output of one product with the weight, tapped; None where no gradient will come."""
        self._turned = None
        layer = self.layers[part]
        if not self.recording or not output.requires_grad or layer.is_lost:
            return None
        if not torch.compiler.is_compiling() and output.numel() == 0:
            return None
        if not self._fits(layer, output, contexts, walk):
            self.lose(NO_ROWS)
            return None
        return layer.tap(output, contexts, walk)

    def _fits(self, layer: EntanglementLayer, output: Tensor, contexts: Tensor, walk: Geometry | None) -> bool:
        """Whether contexts and output are rows of the widths of the weight, where statistics of them can be formed."""
        if not (_has_rows(output) and _has_rows(contexts)):
            return False
        if self._is_plain and walk is None:  # torch has compared the widths
            return True
        if not (output.is_floating_point() and contexts.is_floating_point()):
            return False
        if output.device != layer.mass_carrier.device:
            return False
        if walk is None:
            return output.shape[-1] == self._outputs and contexts.shape[-1] == layer.inputs
        features, patch = -1 - walk.dimensions, walk.kernel[0] * walk.kernel[1]
        inputs = contexts.shape[features] * patch
        return output.shape[features] == self._outputs and inputs == layer.inputs * walk.groups

    def turn(self, transposed: bool) -> bool:
        """Learns from its first product that it is stored so, before anything is known of it."""
        if self._turned is not None and transposed != self.transposed:
            inputs, self._outputs = self._outputs, self.layers[0].inputs
            self.layers = [layer.turned(inputs, self._turned) for layer in self.layers]
            self.transposed, self._turned = transposed, None
        return transposed == self.transposed

    def lose(self, why: str) -> None:
        """Part of what the weight meets cannot be seen, so that it counts as unseen in this step."""
        if not self.recording:
            return
        self.trouble = why
        for layer in self.layers:
            layer.is_lost = True

    def _was_given_up(self) -> bool:
        """Whether somebody threw the gradient away that belongs to what was recorded, as `model.zero_grad()` does."""
        return self._sees_gradients and self.parameter.grad is None and any(layer.recorded for layer in self.layers)

    def rest(self) -> None:
        """After a step that recorded: nothing has happened yet in the next one."""
        self.clear()
        self.trouble, self.is_late = self._at_rest, False

    def clear(self) -> None:
        """Forgets what was recorded for a step that was given up."""
        for layer in self.layers:
            layer.clear()

    def _follow(self) -> None:
        """Moves the layers to where the parameter is now."""
        for layer in self.layers:
            if layer.mass_carrier.device != self.parameter.device:
                layer.move(self.parameter.device)

    def __getstate__(self) -> dict[str, Any]:
        """A copied model (an average of weights, say) records nothing until an optimizer of its own says so."""
        return {**self.__dict__, "recording": False}

"""Layers that share scores (hierarchy `block` or `model`).

All of them must have been seen before the first statistic can be formed. Their taps only show what they see; a node that
every one of them depends on runs after the last of them, and forms the statistics there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cegm.context.patches import Geometry
from cegm.context.statistics import score, sums
from cegm.context.transforms import is_batched

if TYPE_CHECKING:
    from cegm.context.layers import EntanglementLayer


class _Show(torch.autograd.Function):
    """Identity on a layer's output whose backward pass shows contexts and demands to the layers that share its scores."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        contexts: Tensor,
        slot: Tensor,
        seed: Tensor,
        guide: Tensor | None,
        walk: Geometry | None,
        layer: EntanglementLayer,
        call: int,
    ) -> Tensor:
        ctx.layer, ctx.walk, ctx.call = layer, walk, call
        ctx.save_for_backward(contexts if layer.recipe.needs_contexts else None, seed, guide)
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (contexts, seed, guide), layer = gradients, ctx.saved_tensors, ctx.layer
        assert layer.sharers is not None
        if is_batched(gradient):
            return gradient, *[None] * (len(ctx.needs_input_grad) - 1)
        with torch.autocast(gradient.device.type, enabled=False):
            seen = score(layer.recipe, contexts, gradient, ctx.walk, seed, guide)
        layer.sharers.shown.append(Shown(layer, _backward_pass(), ctx.call, gradient.ndim > 2, *seen))
        return gradient, None, seed.new_zeros((), dtype=torch.float32), None, None, None, None, None


class _Gather(torch.autograd.Function):
    """Its backward pass runs after those of all taps that hold its slot, and yields the statistics of all their layers."""

    @staticmethod
    def forward(ctx: Any, sharers: Sharers, *carriers: Tensor) -> Tensor:
        ctx.sharers = sharers
        return carriers[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        with torch.autocast(gradient.device.type, enabled=False):
            return None, *ctx.sharers.gather()


def _backward_pass() -> int:
    """Number of the backward pass that runs now."""
    return int(torch._C._current_graph_task_id())


class Shown(NamedTuple):
    """What one call of a layer showed: in which backward pass, the number of the call, whether tokens came in rows, its micro-batch."""

    layer: EntanglementLayer
    backward_pass: int
    call: int
    has_rows: bool
    contexts: Tensor | None
    demands: Tensor
    weights: Tensor


class Sharers:
    """Layers that share one set of scores: the mean of their log-scores (hierarchy `block` or `model`).

    Tokens are matched by position. Layers share whose inputs came in rows (three dimensions or more), equally often and with
    equally many tokens; the first call of one then goes with the first call of the others. Anything else, such as a
    mixture's experts, which see loose tokens, keeps its own scores. A token that only some layers reach gets the mean of
    those. On steps that record, the output gradients of all sharers are kept until the backward pass has left the last
    of them; under reentrant checkpointing, sharing ends at the checkpoint.

    Attributes:
        layers: The layers that may share.
        shown: What the backward pass under way has shown so far.
    """

    def __init__(self) -> None:
        self.layers: list[EntanglementLayer] = []
        self.shown: list[Shown] = []
        # What every tap depends on until a backward pass has gone through; a forward pass without one leaves it be.
        self._slot: Tensor | None = None
        self._calls = 0

    def __getstate__(self) -> dict[str, Any]:
        """A copy takes no backward pass along."""
        return {**self.__dict__, "shown": [], "_slot": None}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def tap(self, layer: EntanglementLayer, output: Tensor, contexts: Tensor, walk: Geometry | None) -> Tensor:
        """The output of `layer`, which will show what it sees."""
        if self._slot is None:
            carriers = [carrier for each in self.layers for carrier in each.carriers()]
            self._slot = _Gather.apply(self, *carriers)  # type: ignore[no-untyped-call]
        self._calls += 1
        tapped: Tensor = _Show.apply(  # type: ignore[no-untyped-call]
            output, contexts, self._slot, layer.next_seed(), layer.guide, walk, layer, self._calls
        )
        return tapped

    def clear(self) -> None:
        """Forgets a backward pass that did not come through."""
        self.shown, self._slot, self._calls = [], None, 0

    def gather(self) -> list[Tensor | None]:
        """Gradients of all carriers of all layers, from what this backward pass has shown; an earlier one may have turned back."""
        now = _backward_pass()
        shown = sorted((each for each in self.shown if each.backward_pass == now), key=lambda each: each.call)
        self.clear()
        totals: dict[Tensor, Tensor] = {}
        for each, weights in zip(shown, _shared_weights(shown), strict=True):
            parts = sums(each.layer.recipe, each.contexts, each.demands, weights)
            for carrier, part in zip(each.layer.all_carriers(), parts, strict=True):
                if carrier is not None and part is not None:
                    totals[carrier] = totals[carrier] + part if carrier in totals else part
        return [totals.get(carrier) for layer in self.layers for carrier in layer.carriers()]


def _shared_weights(shown: Sequence[Shown]) -> list[Tensor]:
    """For each call, `exp` of the mean log-score over the calls that share with it, 0 where it is not reached, (tokens,)."""
    calls = Counter(id(each.layer) for each in shown)
    position = Counter[int]()
    keys: list[Hashable] = []
    for index, each in enumerate(shown):
        owner = id(each.layer)
        keys.append((calls[owner], position[owner], len(each.weights)) if each.has_rows else index)
        position[owner] += 1
    members: dict[Hashable, list[Tensor]] = defaultdict(list)
    for key, each in zip(keys, shown, strict=True):
        members[key].append(each.weights)
    means = {key: _geometric_mean(torch.stack(rows)) for key, rows in members.items()}
    return [means[key] * (each.weights > 0) for key, each in zip(keys, shown, strict=True)]


def _geometric_mean(weights: Tensor) -> Tensor:
    """Over layers, (layers, tokens) to (tokens,), of those that reach a token."""
    reached = weights > 0
    logarithms = torch.where(reached, weights, 1.0).log().sum(dim=0)
    return (logarithms / reached.sum(dim=0).clamp_min(1)).exp()

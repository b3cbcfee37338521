"""What a context card says of the weights of an optimizer: which entry belongs to which, and what it makes of a direction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cegm.assignment import Assignment, Matrix
from cegm.context.card import RELATED, ContextCard, Spectrum, bare_name
from cegm.mapping.home_map import HomeMap, at_norm_of, home_map, pull
from cegm.owners import cut_like
from cegm.sharding import is_sharded, whole


class Retention:
    """Home contexts of the weights of one optimizer.

    A weight has its own; of an adapter, factor `A` meets the contexts of the layer that it adapts, and factor `B` its
    demands.

    Args:
        card: A card, or where its file lies.
        model: What will be trained: the card's model, what came of it, or that with adapters.

    Raises:
        ValueError: The card is of another model, or its file is damaged.
    """

    def __init__(self, card: ContextCard | str | Path, model: nn.Module | None) -> None:
        if model is None:
            raise ValueError("retain needs the model whose card it is; pass model=model")
        self.card = card if isinstance(card, ContextCard) else ContextCard.load(card)
        self._maps: dict[tuple[Any, ...], HomeMap] = {}
        self._placed: dict[tuple[Any, ...], Spectrum] = {}
        self._require_of(model)

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy: without what is known by its place in memory."""
        return {**vars(self), "_maps": {}, "_placed": {}}

    def _require_of(self, model: nn.Module) -> None:
        weights = {}
        for name, parameter in model.named_parameters():
            bare, factor = bare_name(name)
            if not factor and bare in self.card.samples:
                weights[bare] = whole(parameter)
        if not weights:
            raise ValueError(f"the context card knows none of the weights of this model; {RELATED}")
        self.card.require_of(weights)

    def require_known(self, assignments: Iterable[Assignment]) -> None:
        """Raises ValueError where a matrix was not in the card's model, or was of another width; one that home text never met is free."""
        matrices = [a.matrices()[0] for a in assignments if a.role == "matrix" and a.places and a.experts == 1]
        unknown = [m.name for m in matrices if not self._is_known(m)]
        if unknown:
            raise ValueError(
                f"the context card has nothing on {unknown[0]}{_and_more(len(unknown) - 1)}; {RELATED}, or freeze what it does not know"
            )

    def _is_known(self, matrix: Matrix) -> bool:
        name, factor = bare_name(matrix.assignment.name)
        entry = self.card.contexts.get(name)
        return name in self.card.samples and (entry is None or factor == "B" or entry.width == matrix.shape[1])

    def turned(self, direction: Tensor, matrices: Sequence[Matrix], group: Mapping[str, Any]) -> Tensor:
        """The directions, (matrices, outputs, inputs), turned away from home contexts, each at the norm it had."""
        return torch.stack([self._turned(each.float(), m, group) for each, m in zip(direction, matrices, strict=True)])

    def _turned(self, direction: Tensor, matrix: Matrix, group: Mapping[str, Any]) -> Tensor:
        contexts, demands = (self._map(side, matrix, group) for side in ("contexts", "demands"))
        turned = direction if contexts is None else contexts.right(direction)
        turned = turned if demands is None else demands.left(turned)
        return turned if turned is direction else at_norm_of(turned, direction)

    def pulled(self, deviation: Tensor, matrices: Sequence[Matrix], group: Mapping[str, Any]) -> Tensor:
        """What is to be taken off weights, times the learning rate, given `W - W0`, (matrices, outputs, inputs)."""
        return torch.stack([self._pulled(each, m, group) for each, m in zip(deviation, matrices, strict=True)])

    def _pulled(self, deviation: Tensor, matrix: Matrix, group: Mapping[str, Any]) -> Tensor:
        home = self._home("contexts", matrix)
        if home is None:
            return torch.zeros_like(deviation)
        return pull(deviation, home, group["retain_pull"], float(group["lr"]))

    def _map(self, side: str, matrix: Matrix, group: Mapping[str, Any]) -> HomeMap | None:
        power = group["retain_power"] if side == "contexts" else group["retain_gradient_power"]
        home = self._home(side, matrix) if power else None
        if home is None:
            return None
        piece = (matrix.start, matrix.stop) if side == "demands" else ()
        key = (id(home), *piece, power, group["retain_damping"])
        if key not in self._maps:
            made = home_map(home, power, group["retain_damping"])
            if side == "demands":
                width = home.width
                made = HomeMap(*(part[matrix.start // width : matrix.stop // width] for part in made))
            self._maps[key] = made
        return self._maps[key]

    def _home(self, side: str, matrix: Matrix) -> Spectrum | None:
        """What the card keeps of one side of a weight, beside it; None where that side is not the adapted layer's, or was never seen."""
        name, factor = bare_name(matrix.assignment.name)
        if factor == ("B" if side == "contexts" else "A"):
            return None
        entries = self.card.contexts if side == "contexts" else self.card.demands
        entry = entries.get(f"{name}[{matrix.expert}]" if matrix.assignment.experts > 1 else name)
        if entry is None:
            return None
        device = matrix.assignment.parameter.device
        key = (id(entry), device)
        if key not in self._placed:
            self._placed[key] = Spectrum(*(part.to(device) for part in entry))
        return self._placed[key]

    def share(self, direction: Tensor, matrix: Matrix) -> float:
        """How much of a direction home contexts notice: 1 as much as of a random one; NaN where nothing is known."""
        home = self._home("contexts", matrix)
        if home is None or not bool(direction.any()):
            return math.nan
        return float(home.energy(direction.float()))

    @torch.no_grad()
    def begin_adapters(self, assignments: Iterable[Assignment], group: Mapping[str, Any]) -> None:
        """Turns factor `A` of adapters that have not begun, `B = 0`, away from home contexts; the model stays the same function.

        Otherwise `B`, which is free, would learn through directions of `A` that home contexts use.
        """
        by_name = {a.name: a for a in assignments}
        for name, first in by_name.items():
            second = by_name.get(name.replace(".lora_A.", ".lora_B."))
            if bare_name(name)[1] != "A" or second is None or bool(whole(second.parameter).any()):
                continue
            matrix, weight = first.matrices()[0], whole(first.parameter)
            turned = self._turned(matrix.view(weight).float(), matrix, group).reshape(weight.shape).to(weight.dtype)
            sharded = is_sharded(first.parameter)
            first.parameter.copy_(cut_like(name, first.parameter, turned) if sharded else turned)


def _and_more(count: int) -> str:
    return f" and {count} more weights" if count > 0 else ""

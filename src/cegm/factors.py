"""Which weights are the two factors of a LoRA adapter, `W + s B A`, and what makes their steps those of the product alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from cegm.assignment import Matrix
from cegm.context.card import bare_name
from cegm.mapping.normalize import layer_scale
from cegm.mapping.product_metric import product_roots
from cegm.sharding import is_sharded

WITHOUT_RANK: dict[str, dict[str, Any]] = {
    "A": {"gradient_power": 0.0, "row_moment": False},
    "B": {"power": 0.0},
}
"""Options of a factor without contexts and moments over its rank. They change with the factoring; the metric of the product stands in."""


class Pair(NamedTuple):
    """An adapter: the name of its first factor, and both, `A` (rank, inputs) and `B` (outputs, rank)."""

    name: str
    first: Tensor
    second: Tensor


class Factors:
    """The adapters among the weights of one optimizer, and the roots of their metrics in the step that is being taken."""

    def __init__(self) -> None:
        self._pairs: dict[Tensor, Pair] = {}
        self._roots: dict[Tensor, Tensor] = {}

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def add(self, model: nn.Module, parameters: Iterable[Tensor]) -> None:
        """Finds the other factor of each weight that is one, whether that is trained or not.

        Raises:
            ValueError: A factor is sharded, or `A` is zero.
        """
        by_name: dict[str, Tensor] = dict(model.named_parameters())
        names = {parameter: name for name, parameter in by_name.items()}
        for parameter in parameters:
            name = names.get(parameter, "")
            first, second = (name.replace(f".lora_{each}.", f".lora_{factor}.") for each, factor in ("BA", "AB"))
            if bare_name(name)[1] and first in by_name and second in by_name and not _of_experts(model, name):
                self._pairs[parameter] = _checked(Pair(first, by_name[first], by_name[second]))

    def forget(self, parameter: Tensor) -> None:
        """Takes away a weight that is gone from the model."""
        self._pairs.pop(parameter, None)
        self._roots.pop(parameter, None)

    def side(self, parameter: Tensor) -> Literal["A", "B", ""]:
        """Which factor of an adapter a weight is."""
        pair = self._pairs.get(parameter)
        if pair is None:
            return ""
        return "A" if pair.first is parameter else "B"

    def options(self, parameter: Tensor, group: Mapping[str, Any]) -> Mapping[str, Any]:
        """Options of a group as they hold for one of its weights."""
        side = self.side(parameter)
        return {**group, **WITHOUT_RANK[side]} if side else group

    # ------------------------------------------------------------------ a step

    def measure(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """The roots of all metrics, from the weights as they are before a step.

        Raises:
            ValueError: Only one of two factors that are trained goes by this rule.
        """
        if not self._pairs:
            return
        ruled = {p: group for group in groups if group["role"] == "matrix" for p in group["params"] if p in self._pairs}
        batches: dict[tuple[Any, ...], dict[str, tuple[Pair, float]]] = defaultdict(dict)
        for pair in (self._pairs[p] for p in ruled):
            first, second = (factor.flatten(1) for factor in pair[1:])
            if any(factor.requires_grad and factor not in ruled for factor in pair[1:]):
                raise ValueError(
                    f"{pair.name} or its other factor goes by another rule, so that their product would depend on how it is "
                    "factored; give both normalize='product', or freeze one"
                )
            group = ruled.get(pair.first)
            step = 0.0 if group is None else float(group["lr"]) * layer_scale(group, *first.shape)
            key = (first.shape, second.shape, first.dtype, first.device)
            batches[key][pair.name] = (pair, step)
        for members in batches.values():
            self._measure([pair for pair, _ in members.values()], [step for _, step in members.values()])

    def _measure(self, pairs: Sequence[Pair], steps: Sequence[float]) -> None:
        exact = torch.promote_types(pairs[0].first.dtype, torch.float32)
        first = torch.stack([pair.first.detach().flatten(1) for pair in pairs]).to(exact)
        second = torch.stack([pair.second.detach().flatten(1) for pair in pairs]).to(exact)
        left, right = product_roots(first, second, first.new_tensor(steps))
        self._roots.update({pair.first: root for pair, root in zip(pairs, left, strict=True)})
        self._roots.update({pair.second: root for pair, root in zip(pairs, right, strict=True)})

    def into(self, mapped: Tensor, matrices: Sequence[Matrix]) -> Tensor:
        """Gradients of factors, (matrices, outputs, inputs), in coordinates of the product; others as they are."""
        side = self.side(matrices[0].assignment.parameter)
        if not side:
            return mapped
        roots = self._stacked(matrices)
        return roots.mT @ mapped.to(roots.dtype) if side == "A" else mapped.to(roots.dtype) @ roots

    def back(self, direction: Tensor, matrices: Sequence[Matrix]) -> Tensor:
        """Directions in coordinates of the product as those of the factors."""
        side = self.side(matrices[0].assignment.parameter)
        if not side:
            return direction
        roots = self._stacked(matrices)
        return roots @ direction.to(roots.dtype) if side == "A" else direction.to(roots.dtype) @ roots.mT

    def _stacked(self, matrices: Sequence[Matrix]) -> Tensor:
        return torch.stack([self._roots[m.assignment.parameter] for m in matrices])


def _of_experts(model: nn.Module, name: str) -> bool:
    """Whether an adapter is one of a stack, whose factors PEFT keeps in one weight in an order of its own."""
    holder = model.get_submodule(name[: name.index(".lora_")])
    return getattr(holder, "num_experts", 1) > 1


def _checked(pair: Pair) -> Pair:
    if is_sharded(pair.first) or is_sharded(pair.second):
        raise ValueError(f"{pair.name} is sharded, and normalize='product' needs whole factors; use normalize='polar'")
    if not pair.first.is_meta and not bool(pair.first.any()):
        raise ValueError(f"{pair.name} is zero, so that neither factor could begin; let lora_B begin at zero instead")
    return pair

"""`card`: what the layers of a model see on text that it knows, gathered into a `ContextCard`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cegm.assignment import Assignment, Matrix
from cegm.context.card import ContextCard, Spectrum, bare_name, sampled, spectrum
from cegm.options import CARD_SHARE
from cegm.owners import Owners
from cegm.recording import Recorders
from cegm.roles import assign
from cegm.sharding import is_sharded


def card(
    model: nn.Module,
    batches: Iterable[Tensor | Mapping[str, Any]],
    *,
    share: float = CARD_SHARE,
    demands: bool = False,
    home: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ContextCard:
    """Gathers the contexts of a model on text that it knows: its own samples, or home text.

    One forward and one backward pass per batch. The labels are drawn from the model's own predictions, so that `T` is the
    demand side of its Fisher matrix (K-FAC, arXiv 1503.05671). Weights, gradients and modes are left as they were.

    Args:
        model: What `CEGM` will train later, or the base model of its adapters.
        batches: Token ids, shape (rows, length), or the keyword arguments of `model`; `attention_mask` leaves padding out.
        share: Of the directions of a layer, how many are kept apart, in (0, 1]; the others are kept as their mean.
        demands: Whether home demands `T` are kept as well, which `retain_gradient_power` needs.
        home: What is to be remembered of where the text comes from; plain values.
        seed: Of the drawn labels.

    Raises:
        ValueError: `share` outside its range, a model without a matrix or sharded, no batch, too few tokens, or contexts that are not finite.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} is outside (0, 1]; .25 keeps a quarter of the directions")
    assignments = [a for a in assign(model, handed=set(model.parameters())) if a.role == "matrix" and a.places]
    assignments = [a for a in assignments if not bare_name(a.name)[1]]
    if not assignments:
        raise ValueError(
            "the model has no linear layer whose contexts can be seen, so there is nothing for a card to keep"
        )
    if any(is_sharded(a.parameter) for a in assignments):
        raise ValueError("the model is sharded; make the context card before fully_shard(model)")
    gathering = _Gathering(assignments, demands)
    generator = torch.Generator().manual_seed(seed)
    with _at_work(model, assignments), gathering.fed():
        tokens = sum(look(model, batch, generator) for batch in batches)
    contexts, wanted = gathering.collect(share, tokens)
    samples = {bare_name(a.name)[0]: sampled(a.parameter) for a in assignments}
    return ContextCard(contexts, wanted, samples, ({**(home or {}), "tokens": tokens, "seed": seed},))


class _Gathering:
    """The entanglement layers of all matrices, which record whatever passes, and which of them have the same inputs."""

    def __init__(self, assignments: list[Assignment], demands: bool) -> None:
        by_parameter = {a.parameter: a for a in assignments}
        self._assignments = assignments
        self._recorders = Recorders(by_parameter, Owners(by_parameter))
        self._feeders: dict[str, int] = {}
        group = {"power": 1.0, "gradient_power": float(demands), "heads": 1, "recurrence": 0.0, "hierarchy": "layer"}
        for assignment in assignments:
            self._recorders.watch(assignment.parameter, {**group, "scores": "uniform", "exclude_sink": False})
        self._recorders.record()

    @contextmanager
    def fed(self) -> Iterator[None]:
        """Notes which weights are handed one and the same tensor, as queries, keys and values are."""
        handed: list[Tensor] = []  # kept, so that no other tensor takes their place in memory

        def note(name: str, given: tuple[Any, ...]) -> None:
            if given and isinstance(given[0], Tensor) and name not in self._feeders:
                handed.append(given[0])
                self._feeders[name] = id(given[0])

        single = [a for a in self._assignments if len(a.modules) == a.experts == 1]
        hooks = [
            a.modules[0].register_forward_pre_hook(lambda _, given, name=a.name: note(name, given)) for a in single
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def collect(self, share: float, tokens: int) -> tuple[dict[str, Spectrum], dict[str, Spectrum]]:
        """What was recorded, by bare name; weights with the same inputs share the mean of what they recorded.

        They differ in tokens that the loss does not reach: the query of a first position has nothing to choose from.
        """
        demands: dict[str, Spectrum] = {}
        by_feeder: dict[Any, list[tuple[str, Tensor]]] = defaultdict(list)
        for assignment in self._assignments:
            for expert, means in self._recorders.collected(assignment.parameter):
                name = entry_name(assignment.matrices()[expert * len(assignment.pieces)])
                if not all(bool(mean.isfinite().all()) for mean in means.values()):
                    raise ValueError(f"the contexts of {name} are not finite; the model or the text is damaged")
                if "context" in means:
                    by_feeder[self._feeders.get(assignment.name, name)].append((name, means["context"][0]))
                if "demand" in means:
                    demands[name] = spectrum(means["demand"], _directions(means["demand"], share))
            self._recorders.forget(assignment.parameter)
        if not by_feeder:
            raise ValueError("no batch has passed through the model's layers; give at least one row of tokens")
        return {n: each for members in by_feeder.values() for n, each in _shared(members, share, tokens)}, demands


def entry_name(matrix: Matrix) -> str:
    """Under which name a card keeps the contexts of a weight."""
    name = bare_name(matrix.assignment.name)[0]
    return f"{name}[{matrix.expert}]" if matrix.assignment.experts > 1 else name


def _shared(members: list[tuple[str, Tensor]], share: float, tokens: int) -> list[tuple[str, Spectrum]]:
    """One spectrum for all weights with the same inputs."""
    names, moments = zip(*members, strict=True)
    mean = torch.stack(moments).mean(0)
    directions = _directions(mean, share)
    if tokens < directions:
        raise ValueError(
            f"{tokens} tokens are too few for the {directions} directions of {names[0]}; give at least {directions}, better"
            f" {8 * directions}, or lower share"
        )
    shared = spectrum(mean, directions)
    return [(name, shared) for name in names]


def _directions(moment: Tensor, share: float) -> int:
    return max(1, round(share * moment.shape[-1]))


@contextmanager
def _at_work(model: nn.Module, assignments: list[Assignment]) -> Iterator[None]:
    """The model without dropout, its matrices with gradients of their own; afterwards all is as it was."""
    modes = {module: module.training for module in model.modules()}
    parameters = {p: (p.requires_grad, p.grad) for p in model.parameters()}
    watched = {a.parameter for a in assignments}
    try:
        model.eval()
        for assignment in assignments:
            for module in assignment.modules:
                module.training = True  # of the layer alone: only there entanglement layers listen
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(parameter in watched)
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, (trains, gradient) in parameters.items():
            parameter.requires_grad_(trains)
            parameter.grad = gradient


def look(model: nn.Module, batch: Tensor | Mapping[str, Any], generator: torch.Generator) -> int:
    """Forward and backward pass of one batch, with labels that the model draws; how many tokens it has."""
    given = {"input_ids": batch} if isinstance(batch, Tensor) else {k: v for k, v in batch.items() if k != "labels"}
    device = next(model.parameters()).device
    given = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in given.items()}
    output = model(**given) if not isinstance(batch, Tensor) or hasattr(model, "config") else model(given["input_ids"])
    logits = output if isinstance(output, Tensor) else output.logits if hasattr(output, "logits") else output[0]
    flat = logits.flatten(0, -2).float()  # (tokens, vocabulary)
    mask = given.get("attention_mask")
    if mask is not None:
        flat = flat[mask.flatten().bool()]
    with torch.no_grad():
        drawn = torch.multinomial(flat.softmax(-1).cpu(), 1, generator=generator).flatten().to(flat.device)
    functional.cross_entropy(flat, drawn, reduction="sum").backward()  # type: ignore[no-untyped-call]
    return len(flat)

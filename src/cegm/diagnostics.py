"""What a person or a log asks of a step: how the context of each layer shaped its last gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cegm.assignment import Matrix, stack
from cegm.mapping.normalize import effective_ranks, frobenius_norms, layer_scale
from cegm.momentum import looked_ahead

if TYPE_CHECKING:
    from cegm.optimizer import CEGM

STAGES = ("gradient", "mapped", "update")
"""What a gradient is on its way to the weight: as it came, after lines 7 and 9, after line 10."""


@torch.no_grad()
def diagnose(optimizer: CEGM) -> dict[str, dict[str, float]]:
    """Per layer, how its context shaped its last gradient; changes nothing.

    Call it after `step()` and before `zero_grad()`; of a sharded model on all ranks, each of which gets the whole. Weights
    that have never moved are left out.

    Returns:
        For each weight of Algorithm 1, by name in the model's order: `gradient_norm` (Frobenius), `update_to_weight` (root mean square
        of the last step over that of the weight), `context_rank` and `gradient_context_rank` (effective rank of
        `S_t` and `T_t`, NaN without), `cosine` (between `G_t` and the mapped gradient `E_t`, NaN where that is zero),
        `entanglement` (the coefficient). Effective ranks, the participation ratio of squared singular values, of what a
        gradient is on its way to the weight: `gradient_rank` (the raw gradient `G`), `mapped_rank` (`E_t`, after momentum and
        map), `update_rank` (the direction the weight moved in); NaN where it is zero. With a context card `home`: how much of
        the direction before retention home contexts would notice, 1 as much as of a random one.
    """
    report: dict[str, dict[str, float]] = {}
    for group in optimizer.param_groups:
        if group["role"] == "matrix":
            gradients = optimizer._owners.gradients(group["params"])
            weights = optimizer._owners.wholes({p: p.data for p in group["params"] if p.grad is not None})
            for matrices in optimizer.equal_shapes(gradients):
                _diagnose(optimizer, matrices, gradients, weights, group, report)
    report = {name: entry for each in optimizer._owners.exchange_objects(report) for name, entry in each.items()}
    ordered = [matrix.name for assignment in optimizer.matrices() for matrix in assignment.matrices()]
    return {name: report[name] for name in ordered if name in report}


def _diagnose(
    optimizer: CEGM,
    matrices: list[Matrix],
    gradients: dict[Tensor, Tensor],
    values: dict[Tensor, Tensor],
    group: dict[str, Any],
    report: dict[str, dict[str, float]],
) -> None:
    gradient = stack(matrices, gradients)
    if group["map_first"]:
        given, turned = gradient, optimizer._map(gradient, matrices)
        mapped = _entangled(optimizer, turned, matrices, group)
    else:
        given = _entangled(optimizer, gradient, matrices, group)
        turned = mapped = optimizer._map(given, matrices)
    cosines = torch.nn.functional.cosine_similarity(given.float().flatten(1), turned.float().flatten(1))
    cosines[frobenius_norms(turned.float()).flatten() == 0] = math.nan
    raw, direction = optimizer.direct(mapped, matrices, group, decay=1.0)
    direction = direction.float()
    sizes = frobenius_norms(direction).flatten() * float(group["lr"]) * layer_scale(group, *matrices[0].shape)
    norms = frobenius_norms(gradient.float()).flatten()
    weights = frobenius_norms(stack(matrices, values).float()).flatten()
    ranks = [effective_ranks(each.float()).tolist() for each in (gradient, mapped, direction)]
    for index, matrix in enumerate(matrices):
        state = optimizer.state[matrix.assignment.parameter]
        report[matrix.name] = {
            "gradient_norm": float(norms[index]),
            "update_to_weight": float(sizes[index] / weights[index].clamp_min(group["eps"])),
            "context_rank": _of_expert(state, "context_rank", matrix),
            "gradient_context_rank": _of_expert(state, "demand_rank", matrix),
            "cosine": float(cosines[index]),
            "entanglement": group["entanglement"],
            **({} if optimizer._retention is None else {"home": optimizer._retention.share(raw[index], matrix)}),
            **{f"{stage}_rank": rank[index] for stage, rank in zip(STAGES, ranks, strict=True)},
        }


def _entangled(optimizer: CEGM, gradient: Tensor, matrices: list[Matrix], group: dict[str, Any]) -> Tensor:
    """What line 7 made of the last gradient, from the momentum that it left."""
    momentum = torch.stack([m.view(optimizer.state[m.assignment.parameter]["momentum"]) for m in matrices])
    return looked_ahead(gradient, momentum, group)


def _of_expert(state: dict[str, Any], key: str, matrix: Matrix) -> float:
    """One of the numbers that a state keeps per expert; NaN where it keeps none."""
    return float(state[key][matrix.expert]) if key in state else math.nan

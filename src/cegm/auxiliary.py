"""Embeddings, output head and vectors, which meet no context: torch's AdamW updates them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from cegm.assignment import Assignment
from cegm.sharding import local

ADAMW_EPS = 1e-8


def adamw_step(
    group: Mapping[str, Any], states: MutableMapping[Tensor, Any], assignments: Mapping[Tensor, Assignment]
) -> None:
    """One step of a group, on the shard of this rank.

    Raises:
        RuntimeError: A gradient is sparse.
    """
    parameters = [p for p in group["params"] if p.grad is not None]
    for parameter in parameters:
        require_dense(assignments[parameter].name, cast(Tensor, parameter.grad))
        state = states[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        follow_device(state, "exp_avg", parameter)
        if state["exp_avg"].dtype != parameter.dtype:
            state.update({name: state[name].to(parameter.dtype) for name in ("exp_avg", "exp_avg_sq")})
    if not parameters:
        return
    own = [states[p] for p in parameters]
    beta1, beta2 = group["aux_betas"]
    adamw(
        [local(p) for p in parameters],
        [local(cast(Tensor, p.grad)) for p in parameters],
        [local(s["exp_avg"]) for s in own],
        [local(s["exp_avg_sq"]) for s in own],
        [],
        [s["step"] for s in own],
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=float(group["lr"]),
        weight_decay=group["weight_decay"],
        eps=ADAMW_EPS,
        maximize=False,
    )


def require_dense(name: str, gradient: Tensor) -> None:
    """Raises RuntimeError for the gradient of a weight that is not stored whole."""
    if gradient.layout != torch.strided:
        raise RuntimeError(
            f"{name} has a sparse gradient; give its layer sparse=False, or leave it to another optimizer"
        )


def follow_device(state: dict[str, Any], key: str, parameter: Tensor) -> None:
    """Moves what lies beside `state[key]` to where the weight is now; counters stay where torch keeps them."""
    device = state[key].device if key in state else parameter.device
    if device != parameter.device:
        for name, value in state.items():
            if isinstance(value, Tensor) and value.device == device and value.ndim:
                state[name] = value.to(parameter.device)

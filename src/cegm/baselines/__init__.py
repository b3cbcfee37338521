"""The peers that CEGM is compared with, and the one place where a method's name becomes an optimizer.

Every method gets the same groups (`cegm.groups`) and the same AdamW for embeddings, output head and vectors, so that a
difference comes from the update of the matrices alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer

from cegm.baselines.adamw import AdamW
from cegm.baselines.muon import Muon
from cegm.optimizer import CEGM
from cegm.spelling import nearest

METHODS: dict[str, Callable[..., Optimizer]] = {"adamw": AdamW, "muon": Muon, "cegm": CEGM}


def build_optimizer(method: str, model: nn.Module, **options: Any) -> Optimizer:
    """The optimizer of `method` for all trainable parameters of `model`.

    Args:
        method: A key of `METHODS`.
        model: The model.
        **options: Options of that method; `lr`, `aux_lr`, `aux_betas`, `weight_decay` and `aux_weight_decay` are common
        to all.

    Raises:
        ValueError: Unknown method or option; the message suggests the nearest name.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} does not exist; {nearest(method, METHODS)}")
    known = option_names(method)
    for name in options:
        if name not in known:
            raise ValueError(f"{method} has no option {name!r}; {nearest(name, known)}")
    return METHODS[method](model, **options)


def option_names(method: str) -> list[str]:
    """Names of the options that `method` takes, `lr` included."""
    return [name for name in inspect.signature(METHODS[method]).parameters if name not in ("params", "model")]

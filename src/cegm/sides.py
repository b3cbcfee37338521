"""How many numbers a layer takes and gives: what tells which layer could stand behind which."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cegm.context.taps import is_transposed

TAKES = ("in_features", "in_channels", "input_size", "embed_dim", "in1_features")
"""What torch's modules call the number of inputs."""


def sides(module: nn.Module) -> tuple[int, int] | None:
    """(outputs, inputs) of a layer that multiplies; None for any other module."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return module.out_channels, module.in_channels
    if is_transposed(module):
        weight: Any = module.weight
        return weight.shape[1], weight.shape[0]
    return None


def is_vector(module: nn.Module) -> bool:
    """Whether a layer has a single output or none, as the head of a value or of a reward has."""
    found = sides(module)
    return found is not None and found[0] < 2


def takes(module: nn.Module) -> int | None:
    """How many numbers a layer, a recurrent cell, an attention or a norm takes; None for any other module."""
    found, weight = sides(module), getattr(module, "weight", None)
    if found is not None:
        return found[1]
    if type(module).__module__.startswith("torch.nn") or isinstance(module, nn.modules.conv._ConvNd):
        size = next((size for name in TAKES if isinstance(size := getattr(module, name, None), int)), None)
        if size is not None:
            return size
    return len(weight) if isinstance(weight, Tensor) and weight.ndim == 1 else None


def gives(module: nn.Module) -> int | None:
    """How many numbers a layer, an embedding or a norm gives; None for any other module."""
    found = sides(module)
    if found is not None:
        return found[0]
    return module.embedding_dim if isinstance(module, nn.Embedding) else takes(module)

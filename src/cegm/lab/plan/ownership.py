"""Who updates what when weights are sharded: each matrix of Algorithm 1 belongs whole to one device.

The polar factor of a shard is no shard of the polar factor.
"""

from __future__ import annotations

from collections.abc import Sequence

from cegm.lab.plan.weights import Weight
from cegm.owners import least_loaded


def owned(weights: Sequence[Weight], devices: int) -> list[list[Weight]]:
    """The matrices of each device: the heaviest first, each to the device with the least work so far.

    Args:
        weights: Of a model; those that AdamW updates belong to nobody.
        devices: That share them.

    Returns:
        One list per device; empty where there are fewer matrices than devices.
    """
    parts: list[list[Weight]] = [[] for _ in range(devices)]
    loads = [0.0] * devices
    for weight in sorted((w for w in weights if w.pieces), key=lambda w: -w.work):
        parts[least_loaded(loads, weight.work)].append(weight)
    return parts

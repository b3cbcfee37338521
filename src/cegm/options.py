"""The options of `CEGM`: presets, defaults and the errors for values that cannot work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch

from cegm.context.scores import SCORES
from cegm.mapping.coefficient import COEFFICIENT
from cegm.mapping.normalize import NORMALIZE
from cegm.spelling import nearest

Hierarchy = Literal["layer", "block", "model"]
Preset = Literal["recommended", "paper", "lite"]
LayerScale = Literal["match_adamw", "spectral", "none"]
Precision = Literal["auto", "bfloat16", "float32"]

CONTEXT_BYTES_PER_WEIGHT = 4
"""What contexts and maps may take when `heads` is left open: as much as the momentum, so that the whole state stays within AdamW's 8."""

RECOMMENDED: dict[str, Any] = {
    "weight_decay": 0.1,
    "cautious": False,
    "entanglement": 0.1,
    "nesterov": True,
    "scores": "uniform",
    "exclude_sink": False,
    "hierarchy": "layer",
    "heads": None,
    "recurrence": 0.0,
    "refresh_every": 25,
    "power": 0.0,
    "gradient_power": -1.0,
    "damping": 0.1,
    "map_first": False,
    "flow_time": 0.0,
    "flow_gain": 0.09,
    "flow_decay": 1.0,
    "normalize": "polar",
    "row_moment": True,
    "layer_scale": "match_adamw",
    "coefficient": "constant",
    "coefficient_step": 0.01,
    "coefficient_range": (0.02, 0.2),
    "coefficient_period": 1000,
    "precision": "auto",
    "aux_lr": None,
    "aux_betas": (0.9, 0.95),
    "aux_weight_decay": None,
    "eps": 1e-7,
}
"""What won the comparison; every option has a value here, and the other presets say only where they differ."""

PRESETS: dict[str, dict[str, Any]] = {
    "recommended": {},
    # The letter of Algorithm 1: C_t of this step alone multiplies the gradient, the 2-norm divides it, nothing else.
    "paper": {
        "weight_decay": 0.0,
        "nesterov": False,
        "heads": 1,
        "recurrence": 0.0,
        "refresh_every": 1,
        "power": 1.0,
        "gradient_power": 0.0,
        "damping": 0.0,
        "normalize": "spectral",
        "row_moment": False,
        "layer_scale": "none",
        "coefficient": "progress",
    },
    # Next to nothing beyond the momentum: blocks a quarter as wide, refreshed rarely.
    "lite": {"heads": 32, "refresh_every": 50},
}


def resolve(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options: those given, then the preset's, then the recommended ones.

    Raises:
        ValueError: Unknown preset, or a value outside its range; the message names the value and the remedy.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} does not exist; {nearest(preset, PRESETS)}")
    explicit = {name: value for name, value in given.items() if value is not None}
    options = {**RECOMMENDED, **PRESETS[preset], **explicit}
    check(options)
    return options


def check(options: Mapping[str, Any]) -> None:
    """Raises ValueError, in one line, for a value that cannot work."""
    choices = {
        "scores": SCORES,
        "hierarchy": get_args(Hierarchy),
        "normalize": NORMALIZE,
        "coefficient": COEFFICIENT,
        "layer_scale": get_args(LayerScale),
        "precision": get_args(Precision),
    }
    for name in ("lr", "aux_lr"):
        rate = options.get(name)
        if isinstance(rate, torch.Tensor) and rate.numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element, but {name} has {rate.numel()}; give one rate")
    for name, allowed in choices.items():
        if options[name] not in allowed:
            raise ValueError(f"{name}={options[name]!r} does not exist; {nearest(options[name], allowed)}")
    ranges = {
        "lr": (0.0, float("inf")),
        "aux_lr": (0.0, float("inf")),
        "weight_decay": (0.0, float("inf")),
        "aux_weight_decay": (0.0, float("inf")),
        "damping": (0.0, float("inf")),
        "recurrence": (0.0, 1.0),
        "eps": (0.0, 1.0),
        "flow_time": (0.0, float("inf")),
        "flow_gain": (0.0, float("inf")),
        "flow_decay": (0.0, float("inf")),
        "coefficient_step": (0.0, 1.0),
    }
    for name, (low, high) in ranges.items():
        value = options.get(name)
        if value is not None and not (low <= value <= high and math.isfinite(value)):
            raise ValueError(f"{name}={value} is outside [{low:g}, {high:g}]; give a finite value inside")
    if options["recurrence"] == 1.0:
        raise ValueError("recurrence=1 never lets a context in; use a value below 1, such as 0.95")
    for name in ("coefficient_range", "aux_betas"):
        if not isinstance(options[name], (tuple, list)) or len(options[name]) != 2:
            raise ValueError(f"{name}={options[name]!r} must be two numbers, such as {RECOMMENDED[name]}")
    low, high = options["coefficient_range"]
    if not 0.0 < low <= high <= 1.0:
        raise ValueError(f"coefficient_range={(low, high)} must satisfy 0 < low <= high <= 1")
    if not 0.0 < options["entanglement"] <= 1.0:
        raise ValueError(
            f"entanglement={options['entanglement']} is outside (0, 1]; Muon's momentum 0.95 is entanglement=0.05"
        )
    for name in ("heads", "refresh_every", "coefficient_period"):
        value = options[name]
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}={value} must be a whole number of at least 1")
    for name, beta in zip(("first", "second"), options["aux_betas"], strict=True):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"aux_betas={options['aux_betas']}: the {name} must be in [0, 1)")
    for name in ("power", "gradient_power"):
        power = options[name]
        if not math.isfinite(power):
            raise ValueError(f"{name}={power} is no power; give a finite number, such as -0.5")
        if options["damping"] == 0.0 and (power < 0 or power != int(power)):
            raise ValueError(
                f"{name}={power} with damping=0 inverts what no context has shown; use damping above 0, such as 0.1"
            )
    if options["flow_time"] and not (options["power"] or options["gradient_power"]):
        raise ValueError(
            f"flow_time={options['flow_time']:g} has no map to flow through; set power or gradient_power, or flow_time=0"
        )


def block_width(features: int, others: int, heads: int | None, sharers: int, name: str) -> int:
    """Width of the diagonal blocks on a side with `features` features.

    Args:
        features: Features of this side.
        others: Features of the other side of the weight.
        heads: Number of blocks; one per feature where there are fewer; None: the widest blocks that keep all
            block-diagonal matrices of the weight within `CONTEXT_BYTES_PER_WEIGHT`.
        sharers: How many such matrices share that memory: map, and statistics if they recur, on each side that carries
            a context.
        name: Of the side, for the error.

    Raises:
        ValueError: `heads` was asked for and does not divide `features`.
    """
    if heads is None:
        # 4 bytes x width x features for each sharer, over features x others weights
        widest = max(1, CONTEXT_BYTES_PER_WEIGHT * others // (4 * sharers))
        return next(width for width in range(min(widest, features), 0, -1) if features % width == 0)
    if features % heads and features > heads:
        raise ValueError(
            f"heads={heads} does not divide the {features} features of {name}; choose a divisor or leave heads out"
        )
    return max(1, features // heads)


def polar_dtype(options: Mapping[str, Any], device: torch.device) -> torch.dtype:
    """Precision of the polar iteration.

    `auto` follows `torch.optim.Muon` (bfloat16) wherever that is at home: on accelerators, on processors that multiply
    matrices of bfloat16 in hardware, and whenever the options *are* Muon (no context, no row moment), so that the two
    agree to the bit. On other processors bfloat16 takes 2 to 30 times as long as float32, so float32 is used.
    """
    if options["precision"] != "auto":
        return torch.bfloat16 if options["precision"] == "bfloat16" else torch.float32
    is_muon = options["power"] == options["gradient_power"] == 0 and not options["row_moment"]
    return torch.bfloat16 if is_muon or device.type != "cpu" or multiplies_bfloat16() else torch.float32


def multiplies_bfloat16() -> bool:
    """Whether this processor has matrix instructions for bfloat16.

    Those of AVX-512 are of vectors: with them a polar factor takes 1.8 to 3.9 times as long as in float32
    (benchmarks/polar_precision.py).
    """
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("amx_bf16", "arm_bf16", "bf16"))

"""What is compared: an arm is a method with what is changed of its settings, and every arm meets every seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

READ = (
    "data", "validation_data", "validation_fraction", "model_name_or_path", "max_length", "per_device_train_batch_size",
    "gradient_accumulation_steps", "max_steps", "num_train_epochs", "lora_r", "lora_alpha", "lora_target_modules",
    "lora_init", "replay", "replay_data",
)  # fmt: skip
"""Options of a run that decide its initial weights and its batches."""

DECADES = 1.0
"""How far the learning rates of a front reach from a method's own, to both sides."""

CONTROLS = "controls"
"""The part of an ablation whose arms are given the base's training time, too."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: That of its method, or of what is changed.
        method: Its optimizer.
        changes: Run and optimizer options by name.
    """

    name: str
    method: str
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def reads_as_others_do(self) -> bool:
        """Whether its runs are meant to begin with the same weights and to see the same batches as those of other arms."""
        return not set(self.changes) & set(READ)


@dataclass(frozen=True)
class Part:
    """Changes of one base that belong to one question."""

    name: str
    question: str
    arms: tuple[Arm, ...]


def changed(method: str, changes: dict[str, Any]) -> Arm:
    """An arm that is named by its changes: `option=value`, several joined by commas."""
    return Arm(", ".join(f"{name}={_shown(value)}" for name, value in changes.items()), method, changes)


def read_rates(text: str, own: float, name: str) -> list[float]:
    """Learning rates of a front, rising.

    Args:
        text: How many, log spaced and `DECADES` to both sides of the method's own, or which ones, comma-separated.
        own: The rate that the method has where no front is asked for.
        name: Of the option, for the error.

    Raises:
        ValueError: Fewer than two, two that are the same, or what is no rate.
    """
    try:
        rates = sorted(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        rates = []
    if len(rates) == 1 and rates[0] >= 2 and rates[0].is_integer():
        last = int(rates[0]) - 1
        rates = [float(f"{own * 10 ** (DECADES * (2 * place / last - 1)):.3g}") for place in range(last + 1)]
    if len(rates) < 2 or len(set(rates)) < len(rates) or not 0 < rates[0] <= rates[-1] < math.inf:
        raise ValueError(f"{name}={text!r} must be a count from 2 on, such as 5, or different rates such as 1e-5,1e-4")
    return rates


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)

"""What is compared: an arm is a method with what is changed of its settings, and every arm meets every seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

READ = (
    "data", "validation_data", "validation_fraction", "model_name_or_path", "max_length", "per_device_train_batch_size",
    "gradient_accumulation_steps", "max_steps", "num_train_epochs", "lora_r", "lora_alpha", "lora_target_modules",
)  # fmt: skip
"""Options of a run that decide its initial weights and its batches."""

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


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)

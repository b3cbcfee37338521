"""Folders of adapters: which model they belong to. Nothing heavy is imported to tell."""

from __future__ import annotations

import json
from pathlib import Path

ADAPTERS = "adapter_config.json"
"""In a folder without `config.json`: PEFT's adapters of a model that is elsewhere."""


def adapted_model(name: str) -> str | None:
    """The model that a folder of adapters belongs to, None for what is no such folder; ValueError where it does not say which."""
    path = Path(name) / ADAPTERS
    if not path.exists() or (Path(name) / "config.json").exists():
        return None
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())}); save the adapters again") from error
    if not base:
        raise ValueError(
            f"{path} names no base model, so its adapters fit nothing; put a saved model's folder under 'base_model_name_or_path' "
            "(adapters of a fresh model cannot be used: its random weights were not saved; train it without lora_r)"
        )
    return str(base)

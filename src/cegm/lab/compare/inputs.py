"""What a run reads and what that means: by these, and not by paths, its results are named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cegm import MEANING
from cegm.lab.compare.compare_config import HELD_OUT
from cegm.lab.train.contents import model_hash, sets_hash, text_hash
from cegm.lab.train.run_config import WORLD

CHANGED = 76
"""Exit code of a run whose text or model is not what it was when the run was planned: no other try, and no other run, would help."""

Inputs = dict[str, Any]
"""`meaning`, and under the name of each option whose content could be hashed that hash; a name on the hub stays a name."""


class ChangedError(ValueError):
    """Something that a run reads is not what it was when the run was planned."""


def inputs(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Inputs:
    """What a run reads for training and for what is measured after it, as it lies there now."""
    held_out = config["validation_data"]
    source = evaluation.get("source", WORLD)
    hashes = {
        "data": text_hash(config["data"]),
        "validation_data": None if held_out is None else text_hash(held_out),
        "model_name_or_path": model_hash(config["model_name_or_path"]),
        "axes_data": None if source in (WORLD, HELD_OUT) else _sets(source, evaluation["axes"]),
    }
    return {"meaning": MEANING, **{name: digest for name, digest in hashes.items() if digest is not None}}


def _sets(source: str, axes: list[str]) -> str:
    from cegm.lab.tasks.axes import AXES  # which take seconds to load

    return sets_hash(Path(source), [name for axis in axes if axis in AXES for name in AXES[axis].sets])


def require_same(planned: Mapping[str, Any], config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> None:
    """Raises ChangedError where what a run reads is not what it was planned for; nothing was kept of that by release 0.1."""
    if not planned:
        return
    now = inputs(config, evaluation)
    for name in {**planned, **now}:
        if planned.get(name) != now.get(name):
            value = {"axes_data": evaluation.get("source"), "meaning": f"{planned.get(name)}, now {now.get(name)}"}
            raise ChangedError(
                f"{name} {value.get(name, config.get(name))} was changed or removed after this run had been planned; give the same command again"
            )

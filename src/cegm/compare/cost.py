"""What a change costs: whole training steps of the changed and the base configuration, interleaved in one process."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cegm.compare.ablation import AblationConfig, Arm
from cegm.compare.effects import COSTS
from cegm.compare.statistics import Difference, paired_ratio
from cegm.compare.timing import BLOCK, Timed, in_turns
from cegm.train.config import RunConfig
from cegm.train.durable import write_whole
from cegm.train.folder import hardware
from cegm.train.prepare import prepare

ROUNDS = 4


def measure_costs(config: AblationConfig, folder: Path, rounds: int = ROUNDS) -> Path:
    """Times every arm beside the base: arm, base, base, arm in each round, after a warm-up block.

    `costs.json` grows arm by arm, so that an interrupted measurement goes on where it stopped.

    Args:
        config: The ablation.
        folder: Where the file goes.
        rounds: Rounds of four blocks per arm.

    Returns:
        Path of the file: `how`, by name of the arm in `ratios` its seconds per step over the base's with their interval, and
        in `ids` a hash of all that decides them.
    """
    torch.set_num_threads(1)
    how = f"whole steps, {rounds} rounds of changed, base, base, changed in blocks of {BLOCK}, one process, one thread"
    path, ids = folder / COSTS, _ids(config, rounds)
    ratios = read_costs(config, folder, rounds)["ratios"]
    base = None
    for arm in [arm for arm in config.arms[1:] if arm.name not in ratios]:
        base = _timed(config, config.arms[0]) if base is None else base
        ratios[arm.name] = asdict(_ratio(_timed(config, arm), base, rounds))
        content = {"how": how, "ratios": ratios, "ids": {name: ids[name] for name in ratios}}
        write_whole(path, json.dumps(content, indent=1))
    return path


def read_costs(config: AblationConfig, folder: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """What the file holds of this ablation's own arms, timed in the same way on the same hardware.

    Returns:
        `how`, None where nothing was measured, and `ratios` by name of the arm.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / COSTS
    if not path.exists():
        return {"how": None, "ratios": {}}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, ids = content["ratios"], content.get("ids", {})
        ratios = {name: found[name] for name, identity in _ids(config, rounds).items() if ids.get(name) == identity}
        return {"how": content["how"] if ratios else None, "ratios": ratios}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; delete it to time the changes again") from None


def _ids(config: AblationConfig, rounds: int) -> dict[str, str]:
    """By name of the arm, a hash of all that decides its ratio."""
    base, *others = (config.planned(arm, config.seed_list[0]).id for arm in config.arms)
    facts = [json.dumps([base, other, rounds, BLOCK, hardware()]) for other in others]
    names = [arm.name for arm in config.arms[1:]]
    return {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in zip(names, facts, strict=True)}


def _ratio(changed: Timed, base: Timed, rounds: int) -> Difference:
    for timed in (changed, base):  # warm-up
        timed.block(BLOCK)
    first, second = zip(*in_turns([changed, base], rounds, BLOCK), strict=True)
    return paired_ratio(first, second)


def _timed(config: AblationConfig, arm: Arm) -> Timed:
    run = RunConfig(**config.planned(arm, config.seed_list[0]).config)
    parts = prepare(run)
    batch = parts.rows[: run.per_device_train_batch_size]["input_ids"]
    return Timed(run, parts.model, torch.tensor(batch))

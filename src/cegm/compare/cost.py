"""What a change costs: whole training steps of the changed and the base configuration, interleaved in one process.

`costs.json` holds `how` (in words) and `ratios`: by name of the arm the seconds per step over those of the base, as a
`Difference`, and `id`, a hash of all that decides it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cegm.compare.ablation import AblationConfig, Arm
from cegm.compare.effects import COSTS, read_costs
from cegm.compare.statistics import Difference, paired_ratio
from cegm.compare.timing import BLOCK, Timed, in_turns
from cegm.train.config import RunConfig
from cegm.train.durable import write_whole
from cegm.train.folder import hardware
from cegm.train.prepare import prepare


def measure_costs(config: AblationConfig, folder: Path, rounds: int = 4) -> Path:
    """Times every arm beside the base: arm, base, base, arm in each round, after a warm-up block.

    `costs.json` grows arm by arm, so that an interrupted measurement goes on where it stopped.

    Args:
        config: The ablation.
        folder: Where the file goes.
        rounds: Rounds of four blocks per arm.

    Returns:
        Path of the file; see the top of this module for what it holds.

    Raises:
        ValueError: The file is damaged.
    """
    torch.set_num_threads(1)
    how = f"whole steps, {rounds} rounds of changed, base, base, changed in blocks of {BLOCK}, one process, one thread"
    path = folder / COSTS
    identities = {arm.name: _identity(config, arm, rounds) for arm in config.arms[1:]}
    kept: dict[str, Any] = read_costs(folder).get("ratios", {})
    ratios = {name: kept[name] for name, own in identities.items() if name in kept and kept[name].get("id") == own}
    missing = [arm for arm in config.arms[1:] if arm.name not in ratios]
    if not missing:
        return path
    base = _timed(config, config.arms[0])
    for arm in missing:
        ratios[arm.name] = {"id": identities[arm.name], **asdict(_ratio(_timed(config, arm), base, rounds))}
        write_whole(path, json.dumps({"how": how, "ratios": ratios}, indent=1))
    return path


def _identity(config: AblationConfig, arm: Arm, rounds: int) -> str:
    runs = [config.planned(each, config.seed_list[0]).id for each in (arm, config.arms[0])]
    return hashlib.sha256(json.dumps([runs, rounds, BLOCK, hardware()]).encode()).hexdigest()[:12]


def _ratio(changed: Timed, base: Timed, rounds: int) -> Difference:
    for timed in (changed, base):  # warm-up
        timed.block(BLOCK)
    first, second = zip(*in_turns([changed, base], rounds, BLOCK), strict=True)
    return paired_ratio(first, second)


def read_ratios(folder: Path) -> dict[str, float]:
    """Seconds per step of each timed arm over those of the base, by name."""
    return {name: ratio["estimate"] for name, ratio in read_costs(folder).get("ratios", {}).items()}


def _timed(config: AblationConfig, arm: Arm) -> Timed:
    run = RunConfig(**config.planned(arm, config.seed_list[0]).config)
    parts = prepare(run)
    batch = parts.rows[: run.per_device_train_batch_size]["input_ids"]
    return Timed(run, parts.model, torch.tensor(batch))

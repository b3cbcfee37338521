"""What a change costs: whole training steps of the changed and the base configuration, interleaved in one process."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cegm.compare.ablation import AblationConfig, Arm
from cegm.compare.effects import COSTS
from cegm.compare.statistics import Difference, paired_ratio
from cegm.train.config import RunConfig

BLOCK = 25
"""Steps timed together: as many as lie between two refreshes of the recommended preset."""


def measure_costs(config: AblationConfig, folder: Path, rounds: int = 4) -> Path:
    """Times every arm beside the base: arm, base, base, arm in each round, after a warm-up block.

    `costs.json` grows arm by arm, so that an interrupted measurement goes on where it stopped.

    Args:
        config: The ablation.
        folder: Where the file goes.
        rounds: Rounds of four blocks per arm.

    Returns:
        Path of the file: `how`, and by name of the arm the ratio of seconds per step with its interval.
    """
    torch.set_num_threads(1)
    how = f"whole steps, {rounds} rounds of changed, base, base, changed in blocks of {BLOCK}, one process, one thread"
    path = folder / COSTS
    ratios = json.loads(path.read_text(encoding="utf-8"))["ratios"] if path.exists() else {}
    missing = [arm for arm in config.arms[1:] if arm.name not in ratios]
    if not missing:
        return path
    base = _Timed(_run(config, config.arms[0]))
    for arm in missing:
        ratios[arm.name] = asdict(_ratio(_Timed(_run(config, arm)), base, rounds))
        path.write_text(json.dumps({"how": how, "ratios": ratios}, indent=1), encoding="utf-8")
    return path


def _ratio(changed: _Timed, base: _Timed, rounds: int) -> Difference:
    changed.block()  # warm-up of both
    base.block()
    first, second = [], []
    for _ in range(rounds):
        outer, inner, inner_again, outer_again = changed.block(), base.block(), base.block(), changed.block()
        first += [outer, outer_again]
        second += [inner, inner_again]
    return paired_ratio(first, second)


def read_ratios(folder: Path) -> dict[str, float]:
    """Seconds per step of each timed arm over those of the base, by name."""
    costs = json.loads((folder / COSTS).read_text(encoding="utf-8"))
    return {name: ratio["estimate"] for name, ratio in costs["ratios"].items()}


def _run(config: AblationConfig, arm: Arm) -> RunConfig:
    return RunConfig(**config.planned(arm, config.seed_list[0]).config)


class _Timed:
    """A model that takes steps on one fixed batch under one configuration."""

    def __init__(self, config: RunConfig) -> None:
        from cegm.train.prepare import prepare
        from cegm.train.trainer import build, build_loss

        parts = prepare(config)
        self._model: Any = parts.model
        self._optimizer: Any = build(config, parts.model)
        self._loss = build_loss(config, parts.model)
        batch = parts.rows[: config.per_device_train_batch_size]["input_ids"]
        self._ids = torch.tensor(batch)  # (rows, tokens)

    def block(self) -> float:
        """Seconds of `BLOCK` steps."""
        start = time.perf_counter()
        for _ in range(BLOCK):
            if self._loss is None:
                loss = self._model(input_ids=self._ids, labels=self._ids, use_cache=False).loss
            else:
                loss = self._loss(self._model(input_ids=self._ids, use_cache=False), self._ids)
            loss.backward()
            self._optimizer.observe_loss(loss)
            self._optimizer.step()
            self._optimizer.zero_grad()
        return time.perf_counter() - start

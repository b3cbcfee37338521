"""How each method recovers from one bad step: the same run with and without it, from the same weights on the same batches.

`drill.json` holds `how` (in words), `hardware`, `methods`, `spikes` (names of the bad steps), `after` (steps that were
watched), `healed` (nats per token), `inputs` (hashes of text and model) and `points`, one per seed and method with `id` (a
hash of all that decides it), `method`, `seed` and `curves`, one per spike and clipping:

- `spike`: `gradient` (the step's own, times 1000) or `tokens` (those of a random batch);
- `clip`: the norm to which gradients were clipped, from the first step on; 0 is no clipping;
- `excess`: for every step after the bad one, the training loss above that of the undisturbed copy on the same batch, nats per
  token; null from where loss or gradient was not finite, which would have stopped a run;
- `highest` of these, null if not all are finite, and `left`, the mean of the last `LAST`;
- `recovered_after`: steps until the mean of `SMOOTH` stays below `healed`; null if it does not within those watched.

A point that could not be measured has `error` in place of `curves`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cegm.lab.compare.config import CompareConfig
from cegm.lab.compare.learner import Learner
from cegm.lab.compare.plan import PlannedRun, inputs_of_training, plan_arms
from cegm.lab.compare.points import Advance, Point, measure_points
from cegm.lab.report.folder import DRILL
from cegm.lab.train.config import RunConfig
from cegm.lab.train.folder import hardware
from cegm.lab.train.prepare import Parts, prepare, quieten

WARMUP, BEFORE, AFTER = 10, 60, 100
STRENGTH = 1000.0
SPIKES = {"gradient": f"gradient \N{MULTIPLICATION SIGN} {STRENGTH:,.0f}", "tokens": "random tokens"}
HEALED, SMOOTH, LAST = 0.02, 5, 10

Step = tuple[Tensor, float]
"""Micro-batches, (micro-batches, rows, tokens), and what their gradient is multiplied by."""


def measure_drill(config: CompareConfig, folder: Path) -> Path:
    """Drills every method and seed that `drill.json` does not hold yet; the file grows point by point.

    A model and one copy of it, with their optimizers, are held in memory at a time.
    """
    quieten()
    torch.set_num_threads(1)  # as in the runs of the comparison
    planned = {run.id: _point(run) for run in plan_drill(config)}
    return measure_points(folder / DRILL, "drill", planned, _head(config))


def recovery(excess: Sequence[float]) -> int | None:
    """Steps until the mean excess of `SMOOTH` steps is below `HEALED` for good; 0 if it never was above, None if it is in the end."""
    smooth = np.convolve(excess, np.ones(SMOOTH) / SMOOTH, mode="valid")
    above = np.flatnonzero(~(smooth < HEALED))  # a loss that is not finite is not below
    if not len(above):
        return 0
    last = int(above[-1])
    return None if last == len(smooth) - 1 else last + 1


def plan_drill(config: CompareConfig) -> list[PlannedRun]:
    """Every arm on the first seeds, with its own settings, but a rate that stays: no schedule heals what a method does not."""
    rate = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": WARMUP, "max_steps": BEFORE + 1 + AFTER}
    unused = {"eval_steps": 0, "logging_steps": 0, "save_steps": 0}
    decisive = {"drill": [BEFORE, STRENGTH, HEALED, SMOOTH, LAST]}  # the numbers of steps are part of the run
    return plan_arms(config, decisive, seeds=config.seed_list[: config.drill_seeds], changes={**rate, **unused})


def _head(config: CompareConfig) -> dict[str, Any]:
    how = (
        f"every run is trained for {BEFORE} steps (a warm-up of {WARMUP}, then a constant learning rate) and copied with its optimizer; "
        f"one copy goes on undisturbed, each other one takes one bad step: its gradient times {STRENGTH:,.0f}, or a batch of random "
        "tokens. Excess is their training loss minus that of the undisturbed copy on the same batches. A method has recovered when the "
        f"mean excess of {SMOOTH} steps stays below {HEALED:g} nats per token; what is left is the mean of the last {LAST} steps"
    )
    facts = {"methods": list(config.arms), "spikes": SPIKES, "after": AFTER, "healed": HEALED}
    return {"how": how, "hardware": hardware(), **facts, "inputs": inputs_of_training(config)}


def _point(planned: PlannedRun) -> Point:
    facts, run = {"method": planned.arm, "seed": planned.seed}, RunConfig(**planned.config)
    pieces = len(_clips(run)) * (2 + len(SPIKES))
    return Point(f"{planned.arm} seed {planned.seed}", facts, partial(_curves, run), pieces)


def _clips(run: RunConfig) -> list[float]:
    return sorted({0.0, run.max_grad_norm})


def _curves(run: RunConfig, advance: Advance) -> dict[str, Any]:
    parts = prepare(run)
    batches = _batches(run, parts)
    random = torch.randint(
        len(parts.tokenizer), batches[BEFORE].shape, generator=torch.Generator().manual_seed(run.seed)
    )
    curves = []
    for clip in _clips(run):
        learner = Learner(replace(run, max_grad_norm=clip), copy.deepcopy(parts.model))
        _warm_up(learner, batches[:BEFORE])
        advance()
        for spike, excess in _excesses(learner, batches[BEFORE:], random, advance).items():
            curves.append({"spike": spike, "clip": clip, **_told(excess)})
    return {"curves": curves}


def _batches(run: RunConfig, parts: Parts) -> Tensor:
    """(steps, micro-batches, rows, tokens), the same for every method; a short text comes round again."""
    rows = torch.from_numpy(np.asarray(parts.rows["input_ids"]))
    shape = (BEFORE + 1 + AFTER, run.gradient_accumulation_steps, run.per_device_train_batch_size)
    wanted, generator = math.prod(shape), torch.Generator().manual_seed(run.seed)
    rounds = [torch.randperm(len(rows), generator=generator) for _ in range(math.ceil(wanted / len(rows)))]
    return rows[torch.cat(rounds)[:wanted]].reshape(*shape, rows.shape[1])


def _warm_up(learner: Learner, batches: Tensor) -> None:
    """Trains up to the bad step; a RuntimeError where loss or gradient is not finite already."""
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    for step, batch in enumerate(batches):
        for group, rate in zip(learner.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / WARMUP)
        if math.isnan(_train(learner, (batch, 1.0), step)):
            raise RuntimeError(f"loss or gradient is not finite at step {step + 1}, before any bad step")


def _excesses(learner: Learner, batches: Tensor, random: Tensor, advance: Advance) -> dict[str, list[float]]:
    """By spike, what each loss after the bad step, whose batch is the first, lies above that of the undisturbed copy."""
    own, after = (batches[0], 1.0), [(batch, 1.0) for batch in batches[1:]]
    bad: dict[str, Step] = {"gradient": (batches[0], STRENGTH), "tokens": (random, 1.0)}
    losses = {}
    for name, step in {"": own, **bad}.items():
        losses[name] = np.asarray(_losses(copy.deepcopy(learner), [step, *after])[1:])
        advance()
    return {name: (losses[name] - losses[""]).tolist() for name in bad}


def _losses(learner: Learner, steps: Sequence[Step]) -> list[float]:
    """Loss of every step, NaN from the first on that is not finite."""
    losses = [math.nan] * len(steps)
    for place, step in enumerate(steps):
        losses[place] = _train(learner, step, BEFORE + place)
        if math.isnan(losses[place]):
            break
    return losses


def _train(learner: Learner, step: Step, number: int) -> float:
    """One step; its loss in nats per token, or NaN where loss or gradient is not finite and a run would not have updated."""
    torch.manual_seed(number)  # dropout, if there is any, falls alike in all copies
    batch, strength = step
    loss, norm = learner.gradients(list(batch.to(learner.device)), strength)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        return math.nan
    learner.update(loss)
    return float(loss)


def _told(excess: list[float]) -> dict[str, Any]:
    finite = all(map(math.isfinite, excess))
    return {
        "excess": [round(each, 5) if math.isfinite(each) else None for each in excess],
        "highest": max(excess) if finite else None,
        "recovered_after": recovery(excess),
        "left": fmean(excess[-LAST:]) if finite else None,
    }

"""What an arm costs: whole training steps beside the reference's, with memory and throughput.

Methods are timed beside AdamW over widths, batches and lengths; each change of an ablation beside its base, at the base's shape.

`overhead.json` holds `how` (in words), `hardware`, `reference`, `methods`, `inputs` (hashes of text and model) and `points`.
A point has `id` (a hash of all that decides it), `width`, `batch` (rows of a micro-batch) and `length` (tokens of a row); the
first is the comparison's own shape, and each other one differs from it in one of these, or in the change that is timed. It
further has `parameters` and by arm in `methods`:

- `seconds`: of each block, per step, and their median `seconds_per_step`; `tokens_per_second` follows from it;
- `ratio`: seconds over the reference's, geometric mean over the blocks, paired by turn, with `low` and `high`, null where
  they are too few for an interval, and the `points` of all blocks;
- `peak_bytes`: the most that tensors held at a time: weights, gradients, state, activations; `peak_ratio` to the reference;
- `state_bytes` of the optimizer, and `state_bytes_per_matrix_weight` of the matrices alone, exact.

A point that could not be measured has `error` in place of these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from cegm.lab.baselines import ordered
from cegm.lab.compare.compare_config import CompareConfig
from cegm.lab.compare.learner import BLOCK, Timed, in_turns, peak_bytes
from cegm.lab.compare.plan import inputs_of_training, plan_run
from cegm.lab.compare.points import Advance, Point, measure_points, read_points
from cegm.lab.compare.seed_statistics import paired_ratio
from cegm.lab.report.runs import OVERHEAD
from cegm.lab.train.folder import hardware
from cegm.lab.train.meter import tensor_bytes
from cegm.lab.train.model import load_tokenizer, model_of_width, model_width
from cegm.lab.train.prepare import count, quieten
from cegm.lab.train.run_config import RunConfig

STILL = 1e-4
"""Learning rate of timed steps. It decides no cost, and the tuned one, held through a whole measurement, could make a model diverge."""

Runs = Mapping[str, RunConfig]


@dataclass(frozen=True)
class Shape:
    """What costs depend on: width of the model, rows of a micro-batch, tokens of a row."""

    width: int
    batch: int
    length: int

    def __str__(self) -> str:
        return f"width {self.width}, {self.batch} x {self.length} tokens"


def shapes(own: Shape) -> list[Shape]:
    """The comparison's own shape, then two more widths, batches and lengths, one varied at a time.

    Widths are half and twice its own. Batches and lengths are smaller, since small ones cost most, and what the
    comparison itself could hold in memory they can; larger only where there is nothing smaller.
    """
    widths = [own.width // 2, 2 * own.width]
    batches, lengths = _quarter_and_half(own.batch, least=1), _quarter_and_half(own.length, least=2)
    varied = [Shape(width, own.batch, own.length) for width in widths]
    varied += [Shape(own.width, batch, own.length) for batch in batches]
    return [own, *varied, *(Shape(own.width, own.batch, length) for length in lengths)]


def _quarter_and_half(number: int, least: int) -> list[int]:
    return [number // 4, number // 2] if number // 4 >= least else [2 * number, 4 * number]


def measure_overhead(config: CompareConfig, folder: Path) -> Path:
    """Measures every point that `overhead.json` does not hold yet; the file grows point by point.

    All arms of a point hold their models in memory at a time, because they take turns.
    """
    quieten()
    torch.set_num_threads(1)  # as in the runs of the comparison
    tokenizer = load_tokenizer(config.run(config.reference, config.seed_list[0]))
    planned = {
        _identity(config, shape, runs): _point(config, tokenizer, shape, runs)
        for shape, runs in _planned(config, tokenizer)
    }
    return measure_points(folder / OVERHEAD, "overhead", planned, _head(config))


def step_ratios(path: Path) -> dict[str, float]:
    """Seconds of a step by arm over those of the reference, at the first shape that each was measured at."""
    ratios: dict[str, float] = {}
    for point in read_points(path, "overhead").values():
        ratios = {name: own["ratio"]["estimate"] for name, own in point["methods"].items()} | ratios
    return ratios


def _arms(config: CompareConfig) -> list[str]:
    return list(dict.fromkeys([config.reference, *config.arms]))


def _head(config: CompareConfig) -> dict[str, Any]:
    how = (
        f"whole steps (forward, backward, clipping, update) on random tokens: each takes {2 * config.overhead_rounds} blocks of "
        f"{BLOCK} steps after {BLOCK + 1} of warm-up, in turns A B C C B A, one process, one thread"
    )
    facts = {"reference": config.reference, "methods": _arms(config), "inputs": inputs_of_training(config)}
    return {"how": how, "hardware": hardware(), **facts}


def _planned(config: CompareConfig, tokenizer: PreTrainedTokenizerBase) -> list[tuple[Shape, Runs]]:
    """Every method at every shape; of an ablation, each change that leaves the model as it is."""
    first = config.run(ordered(config.arms)[-1 if config.parts else 0], config.seed_list[0])
    own = Shape(model_width(first, tokenizer), first.per_device_train_batch_size, first.max_length)
    if not config.parts:
        return [(shape, _runs(config, shape, _arms(config))) for shape in shapes(own)]
    changes = [arm.name for part in config.parts for arm in part.arms if "model_name_or_path" not in arm.changes]
    return [(own, _runs(config, own, [config.reference, change])) for change in changes]


def _point(config: CompareConfig, tokenizer: PreTrainedTokenizerBase, shape: Shape, runs: Runs) -> Point:
    measure = partial(_measure, runs, tokenizer, shape, config.overhead_rounds)
    return Point(list(runs)[-1] if config.parts else str(shape), asdict(shape), measure, 2 * config.overhead_rounds)


def _runs(config: CompareConfig, shape: Shape, arms: list[str]) -> Runs:
    """Runs of the arms, the reference first, at a shape but for what an arm changes of it, with their own settings otherwise."""
    rates, runs = {"learning_rate": STILL, "aux_lr": STILL}, {}
    for name in arms:
        changes = config.arms[name].changes if name in config.arms else {}
        fixed = {"per_device_train_batch_size": shape.batch, "max_length": shape.length, **changes, **rates}
        runs[name] = config.run(name, config.seed_list[0], **fixed)
    return runs


def _identity(config: CompareConfig, shape: Shape, runs: Runs) -> str:
    ids = [plan_run(run, "main", {}).id for run in runs.values()]
    text = json.dumps([ids, shape.width, config.overhead_rounds, BLOCK, hardware()])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _measure(
    runs: Runs, tokenizer: PreTrainedTokenizerBase, shape: Shape, rounds: int, advance: Advance
) -> dict[str, Any]:
    made = [peak_bytes(partial(_warmed, run, tokenizer, shape)) for run in runs.values()]
    timed, peaks = [one for one, _ in made], dict(zip(runs, (peak for _, peak in made), strict=True))
    blocks = []
    for seconds in in_turns(timed, rounds, BLOCK):
        blocks.append([each / BLOCK for each in seconds])
        advance()
    own, reference = dict(zip(runs, zip(*blocks, strict=True), strict=True)), next(iter(runs))
    methods = {
        name: {
            **_pace(list(own[name]), list(own[reference]), _tokens(run)),
            "peak_bytes": peaks[name],
            "peak_ratio": peaks[name] / peaks[reference],
            **_state(one.optimizer),
        }
        for (name, run), one in zip(runs.items(), timed, strict=True)
    }
    return {"parameters": count(timed[0].model), "methods": methods}


def _tokens(run: RunConfig) -> int:
    return run.per_device_train_batch_size * run.max_length * run.gradient_accumulation_steps


def _warmed(run: RunConfig, tokenizer: PreTrainedTokenizerBase, shape: Shape) -> Timed:
    """An arm that has met its contexts twice, so that memory has had its peak."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(len(tokenizer), (run.per_device_train_batch_size, run.max_length), generator=generator)
    timed = Timed(run, model_of_width(run, tokenizer, shape.width), tokens)
    timed.block(BLOCK + 1)
    return timed


def _pace(seconds: list[float], reference: list[float], tokens: int) -> dict[str, Any]:
    ratio, usual = paired_ratio(seconds, reference), median(seconds)
    return {
        "seconds": seconds,
        "seconds_per_step": usual,
        "tokens_per_second": tokens / usual,
        "ratio": {"estimate": ratio.estimate, "low": ratio.low, "high": ratio.high, "points": ratio.points},
    }


def _state(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    matrices = [p for group in optimizer.param_groups if group["role"] == "matrix" for p in group["params"]]
    per_weight = tensor_bytes([optimizer.state[p] for p in matrices]) / max(1, sum(p.numel() for p in matrices))
    return {
        "state_bytes": tensor_bytes(list(optimizer.state.values())),
        "state_bytes_per_matrix_weight": per_weight,
    }

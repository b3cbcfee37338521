"""`--dry_run`: what a run would be, from a few timed steps on a model that is thrown away. Writes nothing."""

from __future__ import annotations

import math
import os

import torch
import yaml
from torch import nn

from cegm.lab.train.clipping import policy
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.meter import Meter
from cegm.lab.train.prepare import Parts, count, prepare, quieten, start
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import build, build_loss

TIMED_STEPS = 3


def describe(config: RunConfig) -> str:
    """Resolved configuration, group table, tokens, estimated time and memory, as text; ValueError as of the run itself."""
    quieten()
    if config.sharding == "fsdp":
        raise ValueError(
            "a dry run holds the whole model; leave sharding out, or ask cegm plan --sharding fsdp for memory and time"
        )
    start(config, RunFolder.of(config))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    parts = prepare(config, processes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = parts.model.to(device)
    meter = Meter(device)
    summary = _try_steps(config, parts, model, meter)
    steps = config.steps or math.ceil(_steps_per_epoch(parts, config, processes) * (config.num_train_epochs or 1.0))
    tokens = (
        steps * config.per_device_train_batch_size * config.gradient_accumulation_steps * processes * config.max_length
    )
    seconds = steps * meter.median_step_seconds()
    held_out = parts.held_out
    rows = sum(len(batch["input_ids"]) for batch in held_out.batches)
    return "\n".join(
        [
            yaml.safe_dump(config.to_dict(), sort_keys=False).rstrip(),
            "",
            summary,
            "",
            f"parameters:       {count(parts.model):,} (vocabulary {len(parts.tokenizer):,})",
            f"training:         {steps:,} steps, {tokens:,} tokens ({len(parts.rows):,} different rows)",
            f"validation:       {rows:,} rows, {held_out.predicted:,} tokens, {held_out.bytes:,} bytes",
            *(f"note:             {note}" for note in parts.notes),
            f"clipping:         {policy(config.max_grad_norm)}",
            f"estimated time:   {_duration(seconds)} ({meter.median_step_seconds():.3f} s per step, validation excluded)",
            f"memory:           {meter.memory_bytes() / 2**20:,.0f} MiB at the peak of {TIMED_STEPS} steps",
        ]
    )


def _try_steps(config: RunConfig, parts: Parts, model: nn.Module, meter: Meter) -> str:
    """Times whole steps on random tokens; returns the optimizer's group table."""
    optimizer, entangled = build(config, model), build_loss(config, model)
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.per_device_train_batch_size, config.max_length)
    model.train()
    for _ in range(TIMED_STEPS):
        meter.start_step()
        for _ in range(config.gradient_accumulation_steps):
            tokens = torch.randint(len(parts.tokenizer), shape, generator=generator).to(meter.device)
            with torch.autocast(meter.device.type, torch.bfloat16, enabled=config.bf16):
                outputs = model(input_ids=tokens, labels=tokens if entangled is None else None)
            loss = outputs.loss if entangled is None else entangled(outputs, tokens)
            (loss / config.gradient_accumulation_steps).backward()
        optimizer.step()
        optimizer.zero_grad()
        meter.end_step()
    table: str = optimizer.summary()  # type: ignore[attr-defined]  # every method of cegm.lab.baselines has it
    return table


def _steps_per_epoch(parts: Parts, config: RunConfig, processes: int) -> int:
    """Steps in one pass over the data."""
    return math.ceil(
        len(parts.rows) / (config.per_device_train_batch_size * processes) / config.gradient_accumulation_steps
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""`--dry_run`: what a run would be here, from its data, the shapes of its model and a forecast. Trains nothing, writes nothing."""

from __future__ import annotations

import math
import os

import yaml

from cegm.lab.forecast.forecast import forecast
from cegm.lab.forecast.machine import HERE
from cegm.lab.forecast.plan_config import PlanConfig
from cegm.lab.forecast.table import table
from cegm.lab.train.clipping import policy
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.prepare import prepare, quieten, start
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import build, build_loss


def describe(config: RunConfig) -> str:
    """Resolved configuration, group table, tokens, and the forecast of this run on this machine, as text.

    Raises:
        ValueError: Whatever would refuse the run itself.
    """
    quieten()
    if config.sharding == "fsdp":
        raise ValueError(
            "a dry run holds the whole model; leave sharding out, or ask cegm plan --sharding fsdp for memory and time"
        )
    start(config, RunFolder.of(config))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    parts = prepare(config, processes, has_weights=False)
    groups = build(config, parts.model).summary()  # type: ignore[attr-defined]  # every method of cegm.lab.baselines has it
    build_loss(config, parts.model)
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps * processes
    steps = config.steps or math.ceil(math.ceil(len(parts.rows) / rows) * (config.num_train_epochs or 1.0))
    run = RunConfig(**{**vars(config), "max_steps": steps})
    held_out, batches = parts.held_out, parts.held_out.batches
    try:
        foreseen = table(forecast(PlanConfig(machine=HERE, devices=1), [run]))
    except ValueError as error:  # the run itself may go all the same
        foreseen = f"no forecast of memory and time: {error}"
    return "\n".join(
        [
            yaml.safe_dump(config.to_dict(), sort_keys=False).rstrip(),
            "",
            groups,
            "",
            f"training:    {steps:,} steps, {steps * rows * config.max_length:,} tokens of {len(parts.tokenizer):,} different, "
            f"{len(parts.rows):,} different rows",
            f"validation:  {sum(len(batch['input_ids']) for batch in batches):,} rows, {held_out.predicted:,} tokens, "
            f"{held_out.bytes:,} bytes; its time is not counted",
            *(f"note:        {note}" for note in parts.notes),
            f"clipping:    {policy(config.max_grad_norm)}",
            "",
            foreseen,
        ]
    )

"""What one of several processes of a run does; a module of its own, because a started process has to import it by name."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

import torch.distributed as dist

from cegm.cli import main
from cegm.train.trainer import RunTrainer

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["train_ranks"])  # torch and transformers are imported once

SECONDS = 240
"""How long the processes may take."""


def together(arguments: list[str], folder: Path, port: int, world: int = 2, bad_step: int = 0) -> list[tuple[int, str]]:
    """Runs one command in `world` processes, as torchrun would; exit code and last line on stderr of each."""
    processes = [
        CONTEXT.Process(target=_run, args=(rank, world, port, arguments, str(folder), bad_step))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        process.kill()
    return [tuple(json.loads((folder / f"{rank}.json").read_text())) for rank in range(world)]


def _run(rank: int, world: int, port: int, arguments: list[str], folder: str, bad_step: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if bad_step and rank == world - 1:
        _spoil(bad_step)
    with (Path(folder) / f"{rank}.txt").open("w") as said:
        sys.stderr = said
        code = main(arguments)
    lines = (Path(folder) / f"{rank}.txt").read_text().splitlines()
    (Path(folder) / f"{rank}.json").write_text(json.dumps([code, lines[-1] if lines else ""]))
    if dist.is_initialized():
        dist.destroy_process_group()


def _spoil(step: int) -> None:
    """From a step on, gradients of this process are not finite, but its loss is."""
    original = RunTrainer.training_step

    def spoiled(self, model, inputs, num_items_in_batch=None):
        if self.state.global_step + 1 == step:
            parameter = next(p for p in model.parameters() if p.ndim == 2)
            parameter.register_hook(lambda gradient: gradient * float("nan"))
        return original(self, model, inputs, num_items_in_batch)

    RunTrainer.training_step = spoiled

"""What one of several processes of a run does; a module of its own, because a started process has to import it by name."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from cegm.lab.cli import main
from cegm.lab.train.trainer import RunTrainer

CONTEXT = multiprocessing.get_context("forkserver")

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


def _spoil_backward(module, given, output):
    output.register_hook(lambda gradient: gradient * float("nan"))


def _spoil(step: int) -> None:
    """In a step, gradients of this process are not finite, but its loss is."""
    original = RunTrainer.training_step

    def spoiled(self, model, inputs, num_items_in_batch=None):
        if self.state.global_step + 1 != step:
            return original(self, model, inputs, num_items_in_batch)
        first = next(module for module in model.modules() if isinstance(module, nn.Embedding))
        hook = first.register_forward_hook(_spoil_backward)
        try:
            return original(self, model, inputs, num_items_in_batch)
        finally:
            hook.remove()

    RunTrainer.training_step = spoiled


# ---------------------------------------------------------------------- what they are told, and what they left


def command(model: str, text: str, folder: Path, rows: int) -> list[str]:
    options = {
        "model_name_or_path": model,
        "data": text,
        "output_dir": folder,
        "max_length": 32,
        "per_device_train_batch_size": rows,
        "max_steps": 4,
        "logging_steps": 1,
        "eval_rows": 4,
        "learning_rate": 1e-3,
        "threads": 1,
        "progress": "false",
        "precision": "float32",
        "refresh_every": 2,
    }
    return ["train", *(str(word) for name, value in options.items() for word in (f"--{name}", value))]


def logged(folder: Path, key: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if line["kind"] == "train"]


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.allclose(found[name], weight, atol=1e-5) for name, weight in expected.items())


def final(folder: Path) -> dict[str, object]:
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])

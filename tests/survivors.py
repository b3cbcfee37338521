"""Runs in processes of their own that are killed on the spot, without a chance to tidy up: what a power cut or SIGKILL does."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from cegm import durable
from cegm.lab.train import checkpoints
from cegm.lab.train.audit import AuditLog
from cegm.lab.train.callbacks import MetricsFile
from cegm.lab.train.run import train
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import RunTrainer

CONTEXT = multiprocessing.get_context("forkserver")

PLACES: dict[str, tuple[Any, str]] = {
    "in an accumulation window": (RunTrainer, "training_step"),
    "before the manifest": (checkpoints, "_manifest"),
    "before the move": (checkpoints, "move_whole"),
    "before a rename": (durable.Path, "rename"),
    "before an event": (AuditLog, "record"),
    "in a line of metrics": (MetricsFile, "write"),
}


def start(config: RunConfig, place: str | None = None, call: int = 0) -> BaseProcess:
    """Starts a run that dies in the given call of a place, or that nobody kills."""
    process = CONTEXT.Process(target=_run, args=(config, place, call))
    process.start()
    return process


def _run(config: RunConfig, place: str | None, call: int) -> None:
    if place is not None:
        owner, name = PLACES[place]
        setattr(owner, name, _deadly(getattr(owner, name), call, place == "in a line of metrics"))
    train(config)


def _deadly(original: Callable[..., Any], call: int, half: bool) -> Callable[..., Any]:
    calls = 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            if half:  # what reached the disk of a line when the process died
                with arguments[0]._path.open("a") as file:
                    file.write('{"kind": "train", "ste')
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    return deadly

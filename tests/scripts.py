"""Runs a script as `python SCRIPT` does, in a process of its own; a module, because a started process has to import it by name."""

from __future__ import annotations

import multiprocessing
import os
import runpy
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytorch_lightning", "trl", "peft", "cegm.lab.train.model"])  # what takes seconds, once

SECONDS = 120
"""How long a script may take."""


def run(script: Path, folder: Path) -> tuple[int | None, str]:
    """Exit code and output of a script that starts in `folder`; no exit code when it did not end in time."""
    output = folder / "output.txt"
    process = CONTEXT.Process(target=_run, args=(str(script), str(folder), str(output)))
    process.start()
    process.join(SECONDS)
    code = process.exitcode
    process.kill()
    return code, output.read_text()


def _run(script: str, folder: str, output: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.chdir(folder)
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    runpy.run_path(script, run_name="__main__")

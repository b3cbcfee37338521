"""The run folder: where things lie, `config.yaml`, and the model card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegm.durable import sole_writer, write_whole
from cegm.lab.strict import yaml_text
from cegm.lab.train.checkpoints import WRITING
from cegm.lab.train.provenance import code_hash, versions
from cegm.lab.train.run_config import RunConfig


@dataclass(frozen=True)
class RunFolder:
    """Places in the folder of one run."""

    root: Path

    @classmethod
    def of(cls, config: RunConfig) -> RunFolder:
        """The folder that the configuration names."""
        return cls(Path(config.output_dir).expanduser())

    @property
    def config(self) -> Path:
        """Resolved configuration, versions, hashes."""
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One line per logged step."""
        return self.root / "metrics.jsonl"

    @property
    def audit(self) -> Path:
        """Chained events."""
        return self.root / "audit.jsonl"

    @property
    def checkpoints(self) -> Path:
        """`step-N` folders."""
        return self.root / "checkpoints"

    @property
    def writing(self) -> Path:
        """Where a checkpoint or the model is written before it is moved."""
        return self.checkpoints / WRITING

    @property
    def tensorboard(self) -> Path:
        """What `report_to=tensorboard` writes, unless its own environment variable says where."""
        return self.root / "tensorboard"

    @property
    def card(self) -> Path:
        """The context card, of a run that retains."""
        return self.root / "card.safetensors"

    @property
    def explanation(self) -> Path:
        """Which training rows pull the weights where they move, of a run with `explain_rows`."""
        return self.root / "explanation.json"

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.root / "model"

    def require_free(self) -> None:
        """Raises ValueError when the folder already holds a run."""
        if self.root.exists() and not self.root.is_dir():
            raise ValueError(f"output_dir {self.root} is a file; give a folder")
        if self.holds_run:
            raise ValueError(
                f"output_dir {self.root} already holds a run; give another one, or resume_from_checkpoint=latest"
            )

    @property
    def holds_run(self) -> bool:
        """Whether a run was written here, whole or not."""
        return self.config.exists() or self.metrics.exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and keeps other processes out of it (ValueError); one that is still empty at the end goes again."""
        made = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with sole_writer(self.root):
                shutil.rmtree(self.writing, ignore_errors=True)  # of a process that was killed
                yield
        finally:
            with suppress(OSError):  # not empty
                for folder in made:
                    folder.rmdir()

    @contextmanager
    def undone_on_error(self) -> Iterator[Callable[[], None]]:
        """Removes what was created inside the block if the block fails, so that a refused run leaves nothing.

        Yields:
            To be called when what was created is to stay whatever happens.
        """
        before: set[Path] | None = set(self.root.iterdir())

        def keep() -> None:
            nonlocal before
            before = None

        try:
            yield keep
        except BaseException:
            shutil.rmtree(self.writing, ignore_errors=True)
            for created in set() if before is None else set(self.root.iterdir()) - before:
                shutil.rmtree(created) if created.is_dir() else created.unlink()
            raise

    def tidy(self) -> None:
        """Removes what checkpoints and model needed while they were written."""
        shutil.rmtree(self.writing, ignore_errors=True)
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()


def write_config(
    folder: RunFolder,
    config: RunConfig,
    hashes: dict[str, str],
    model: dict[str, int],
    tokens: dict[str, int],
    left_out: dict[str, Any],
) -> None:
    """Writes `config.yaml`: all that is needed to understand the run, and to repeat it."""
    import torch  # whoever only reads a folder, such as a router or an auditor, needs it not

    described = {
        "config": config.to_dict(),
        "versions": versions(),
        "hashes": {**hashes, "code": code_hash()},
        "model": model,
        "tokens": tokens,
        "left_out": left_out,
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
    }
    write_whole(folder.config, yaml_text(described))


def write_card(model: Path, config: RunConfig, facts: dict[str, Any]) -> None:
    """Writes the card of the model in a folder; `facts` become its table."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    origin = "random weights" if config.is_fresh else "existing weights"
    text = (
        f"---\nlibrary_name: {'peft' if config.lora_r else 'transformers'}\npipeline_tag: text-generation\ntags: [cegm]\n---\n\n"
        f"# {config.model_name_or_path}, trained with {config.method}\n\n"
        f"Started from {origin} (`{config.model_name_or_path}`), trained on `{config.data}` by `cegm train`. "
        f"Every setting is in `config.yaml` of the run folder, every measurement in `metrics.jsonl`.\n\n"
        f"| | |\n|---|---|\n{rows}\n\nNo evaluation beyond the validation loss above was made; do not rely on what the model says.\n"
    )
    # The name of a file need not be text.
    (model / "README.md").write_text(text, encoding="utf-8", errors="backslashreplace")


def hardware() -> str:
    """Such as `2 cores, CPU` or `16 cores, NVIDIA H200`."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}"

"""SFTTrainer with checkpoints that are sealed, and loaded whole or not at all; of a model in shards, too."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from safetensors import SafetensorError
from torch import distributed as dist
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from trl.trainer.sft_trainer import SFTTrainer

from cegm.lab.records import RunState
from cegm.lab.train import checkpoints
from cegm.lab.train.audit import AuditLog
from cegm.lab.train.callbacks import bare
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.model import weights_hash
from cegm.lab.train.resume import RUN_STATE, Resumption
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.sharded import load_state, load_weights, whole_state


class SavingTrainer(SFTTrainer):
    """Writes checkpoints of a run, and goes on from one.

    Args:
        config: The run.
        folder: Run folder; `checkpoints/` goes there.
        audit: Log of the run; None on all but the main process.
        resumption: What the run goes on from; None at a start.
        **arguments: Those of `SFTTrainer`.

    Attributes:
        remembered: Tells, for the hash of the weights, what a checkpoint has to keep besides what transformers keeps.
    """

    remembered: Callable[[str], RunState]

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        audit: AuditLog | None,
        resumption: Resumption | None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.args.save_only_model = False  # transformers itself cannot save the state of shards, and refuses to try
        self.config = config
        self.audit = audit
        self.resumption = resumption
        self._folder = folder

    @property
    def is_sharded(self) -> bool:
        """Whether every process has shards of all weights, so that all take part where whole ones are needed."""
        return self.config.sharding == "fsdp"

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Lets transformers write beside, then seals the checkpoint and moves it into place."""
        with writing(f"the checkpoint of step {self.state.global_step}") if self.audit is not None else nullcontext():
            super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]
        weights = weights_hash(self.accelerator.unwrap_model(self.model)) if self.audit or self.is_sharded else ""
        self.accelerator.wait_for_everyone()
        if self.audit is None:
            return
        step = self.state.global_step
        written = self._folder.writing / f"checkpoint-{step}"
        (written / "training_args.bin").unlink(missing_ok=True)  # a pickle that nothing here needs
        state = msgspec.to_builtins(self.remembered(weights), enc_hook=float)
        (written / RUN_STATE).write_text(json.dumps(state), encoding="utf-8")
        place = self._folder.checkpoints / f"{checkpoints.PREFIX}{step}"
        self.audit.record("checkpoint", step=step, manifest=checkpoints.seal(written, place, step))
        limit = self.config.save_total_limit
        for old in checkpoints.numbered(self._folder.checkpoints)[limit:] if limit else []:
            self.audit.record("removed", checkpoint=old.name)
            checkpoints.remove(old)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Saves both as transformers does, also of shards: the file is that of a single process."""
        if not self.is_sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_state(bare(self.optimizer), keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / checkpoints.OPTIMIZER)
            torch.save(cast(LRScheduler, self.lr_scheduler).state_dict(), Path(output_dir) / checkpoints.SCHEDULER)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Loads the weights as transformers does, which takes missing ones in silence; then they must be the saved ones."""
        if self.is_sharded:
            load_weights(cast(nn.Module, self.model), Path(resume_from_checkpoint))
        else:
            with _nothing_unpickled(resume_from_checkpoint):
                super()._load_from_checkpoint(resume_from_checkpoint, model)
        found = weights_hash(self.accelerator.unwrap_model(self.model))
        if self.resumption is not None and found != self.resumption.state.weights:
            raise ValueError(
                f"the weights of {resume_from_checkpoint} do not fit {self.config.model_name_or_path}; resume with the model the run began with"
            )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Loads both as transformers does, which goes on in silence without the optimizer's state and then without the schedule's."""
        if checkpoint is None:
            return
        saved = Path(checkpoint) / checkpoints.OPTIMIZER
        with _nothing_unpickled(checkpoint):
            if saved.exists() and not self.is_sharded:
                super()._load_optimizer_and_scheduler(checkpoint)
                return
            if saved.exists():
                load_state(bare(self.optimizer), torch.load(saved, map_location="cpu", weights_only=True))
            # Also with `resume_without_optimizer`: the schedule goes on where it was.
            scheduler = cast(LRScheduler, self.lr_scheduler)
            scheduler.load_state_dict(torch.load(Path(checkpoint) / checkpoints.SCHEDULER, weights_only=True))
        for group, rate in zip(bare(self.optimizer).param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Random states, as transformers loads them."""
        with _nothing_unpickled(str(checkpoint)):
            super()._load_rng_state(checkpoint)

    def _init_training_state(self, max_steps: int, *arguments: Any) -> tuple[int, int]:
        """Position in the data; how often to save and log is this run's business, not that of the one that made the checkpoint."""
        position: tuple[int, int] = super()._init_training_state(max_steps, *arguments)  # type: ignore[no-untyped-call]
        self.state.compute_steps(self.args, max_steps)  # type: ignore[no-untyped-call]
        return position

    def _run_epoch(self, **arguments: Any) -> None:  # type: ignore[override]
        """One pass over the data; none when a run that had ended is resumed, which transformers would give one step more."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**arguments)  # type: ignore[no-untyped-call]
        else:
            self.control.should_training_stop = True


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turns what torch and safetensors say of a disk that takes no more into an OSError of one line for the user."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        others = " and at the other processes" if dist.is_initialized() else ""
        raise OSError(
            f"{what} could not be written ({reason}); look at the disk{others}, then resume from the one before"
        ) from error


@contextmanager
def _nothing_unpickled(checkpoint: str) -> Iterator[None]:
    """Turns torch's refusal to run what a file says into a line for the user."""
    try:
        yield
    except pickle.UnpicklingError as error:
        first = " ".join(str(error).split(".")[0].split())
        raise ValueError(
            f"checkpoint {checkpoint} holds more than tensors and plain values, which is never loaded ({first}); use another checkpoint"
        ) from None

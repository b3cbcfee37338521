"""What looks on while a run goes: step clock, metrics.jsonl, validation, progress bar. None of it changes the run."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import UNSET
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.optim.optimizer import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cegm.durable import sha256, sync
from cegm.lab import records
from cegm.lab.records import Metrics, Train, ValidationState, line
from cegm.lab.train.evaluate import ValidationLoss, ValidationSet, validate
from cegm.lab.train.meter import Meter


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line, on disk after each; a number that is not finite becomes null."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.heard_by: Callable[[Metrics], None] = lambda record: None

    def write(self, record: Metrics) -> None:
        """Appends one line, and tells who listens."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line(record) + "\n")
        self.heard_by(record)

    def size(self) -> int:
        """How long it is, after all of it has reached the disk: a checkpoint must not know of more than survives."""
        if not self._path.exists():
            return 0
        sync(self._path)
        return self._path.stat().st_size

    def hash(self) -> str:
        """sha256 of what was written so far, hex."""
        return sha256(self._path) if self._path.exists() else hashlib.sha256().hexdigest()

    def cut_to(self, size: int, digest: str) -> None:
        """Drops what a resumed run will write again: all that came after the checkpoint, a line broken off included.

        ValueError where lines from before the checkpoint are lost or changed: size and hash are those of then.
        """
        there = self._path.stat().st_size if self._path.exists() else 0
        if there < size:
            raise ValueError(
                f"{self._path} has {there} bytes, but {size} when the checkpoint was made; put it back, or resume in another output_dir"
            )
        if size and sha256(self._path, size) != digest:
            raise ValueError(
                f"{self._path} is not what it was when the checkpoint was made; put it back, or resume in another output_dir"
            )
        if there > size:
            os.truncate(self._path, size)


class Clock(TrainerCallback):
    """Ends the step's clock right after the update; must come before every other callback."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Notes whether this step recorded contexts."""
        self._meter.refreshed = bool(getattr(bare(kwargs["optimizer"]), "refreshing", False))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The weights are updated."""
        self._meter.end_step()


class MetricsWriter(TrainerCallback):
    """A `train` line for the first, the last and every `every`-th step.

    Loss, times and clipping are means since the line before; a skipped step counts in times and tokens alone. Where every
    process has shards of the optimizer's state, all take part in a line, and one of them has the file.
    """

    def __init__(self, metrics: MetricsFile | None, meter: Meter, every: int) -> None:
        self._metrics, self._meter, self._every = metrics, meter, every

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the update and before the gradients go, which is when layers can be looked at."""
        step = state.global_step + 1
        meter = self._meter
        if not meter.skipped:
            meter.line_losses.append(meter.loss)
        meter.line_factors.append(meter.clip_factor)
        if step == 1 or step % self._every == 0 or step == state.max_steps:
            record = self._record(step, bare(kwargs["optimizer"]))
            if self._metrics is not None:
                self._metrics.write(record)
            meter.line_losses, meter.line_factors, meter.line_tokens = [], [], meter.tokens

    def _record(self, step: int, optimizer: Optimizer) -> Train:
        meter, count = self._meter, len(self._meter.line_factors)
        step_seconds = statistics.fmean(list(meter.step_seconds)[-count:])
        forward_backward = statistics.fmean(list(meter.forward_backward_seconds)[-count:])
        layers = optimizer.diagnostics() if hasattr(optimizer, "diagnostics") else {}
        coefficients = [values["entanglement"] for values in layers.values() if "entanglement" in values]
        return Train(
            step=step,
            tokens=meter.tokens,
            loss=statistics.fmean(meter.line_losses) if meter.line_losses else None,
            lr_matrix=learning_rate(optimizer, "matrix"),
            lr_adamw=learning_rate(optimizer, "adamw"),
            gradient_norm=meter.gradient_norm,
            clip_factor=meter.clip_factor,
            clipped_share=sum(factor < 1.0 for factor in meter.line_factors) / count,
            spike_score=meter.guard.score,
            spikes=meter.guard.spikes,
            skipped_steps=meter.guard.skipped,
            entanglement=statistics.fmean(coefficients) if coefficients else None,
            tokens_per_second=(meter.tokens - meter.line_tokens) / (count * step_seconds),
            seconds=meter.seconds,
            forward_backward_seconds=forward_backward,
            optimizer_seconds=step_seconds - forward_backward,
            refreshed=meter.refreshed,
            memory_bytes=meter.memory_bytes(),
            layers=layers or UNSET,
            batch_hash=meter.batch_hash,
        )


class Validation(TrainerCallback):
    """Validation loss before the first step, every `every` steps, and after the last."""

    def __init__(self, held_out: ValidationSet, metrics: MetricsFile | None, meter: Meter, every: int) -> None:
        self.held_out, self._metrics, self._meter, self._every = held_out, metrics, meter, every
        self._step = -1
        self.last = ValidationLoss(float("nan"), float("nan"))

    def state(self) -> ValidationState:
        """What a resumed run goes on from."""
        return ValidationState(self._step, self.last.loss, self.last.bits_per_byte)

    def restore(self, state: ValidationState) -> None:
        """Goes on from what `state` returned, so that no step is validated twice."""
        self._step, self.last = state.step, ValidationLoss(state.loss, state.bits_per_byte)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Step 0, unless the run is resumed."""
        if state.global_step == 0:
            self._validate(0, **kwargs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """When it is time."""
        if self._every and state.global_step % self._every == 0:
            self._validate(state.global_step, **kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The end, unless it was just done."""
        if self._step != state.global_step:
            self._validate(state.global_step, **kwargs)

    def _validate(self, step: int, model: Any, optimizer: Any, **_: Any) -> None:
        show_average = getattr(bare(optimizer), "eval", None)
        if show_average is not None:  # of schedule-free methods; the trainer switches back before the next step
            show_average()
        with self._meter.during("validation"):
            self.last = validate(model, self.held_out)
        self._step = step
        if self._metrics is not None:
            self._metrics.write(
                records.Validation(
                    step=step,
                    tokens=self._meter.tokens,
                    seconds=self._meter.seconds,
                    loss=self.last.loss,
                    bits_per_byte=self.last.bits_per_byte,
                )
            )


class ProgressBar(TrainerCallback):
    """Loss, both learning rates, tokens per second and time left, on stderr while that is a terminal."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("training", total=None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Shows the bar."""
        self._progress.update(self._task, total=state.max_steps, completed=state.global_step)
        self._progress.start()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Moves it on."""
        meter, step = self._meter, state.global_step + 1
        rates = [learning_rate(bare(kwargs["optimizer"]), role) for role in ("matrix", "adamw")]
        shown = " / ".join("-" if rate is None else f"{rate:.2e}" for rate in rates)
        speed = meter.tokens / meter.seconds
        self._progress.update(
            self._task, completed=step, description=f"loss {meter.loss:.4f}  lr {shown}  {speed:,.0f} tokens/s"
        )

    def stop(self) -> None:
        """Takes the bar away, also after an error."""
        self._progress.stop()


def bare(optimizer: Any) -> Optimizer:
    """The optimizer itself, without accelerate's wrapper."""
    inner: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


def learning_rate(optimizer: Optimizer, role: str) -> float | None:
    """Learning rate of the first group with that role; None when there is none."""
    return next((float(group["lr"]) for group in optimizer.param_groups if group["role"] == role), None)

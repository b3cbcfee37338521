"""One run from configuration to run folder: `train(RunConfig(...))`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import cast

from transformers import PreTrainedModel, PrinterCallback
from transformers.integrations.integration_utils import TensorBoardCallback
from trl.trainer.sft_config import SFTConfig

from cegm.context.card import ContextCard
from cegm.durable import move_whole, sha256, write_whole
from cegm.lab.records import Final, RunState, facts
from cegm.lab.train.audit import AuditLog
from cegm.lab.train.callbacks import Clock, MetricsFile, MetricsWriter, ProgressBar, Validation
from cegm.lab.train.cards import card_of, fisher_of
from cegm.lab.train.contents import model_hash
from cegm.lab.train.driving import explanation
from cegm.lab.train.folder import RunFolder, write_card, write_config
from cegm.lab.train.health import NonFiniteError
from cegm.lab.train.model import weights_hash
from cegm.lab.train.prepare import Parts, count, is_main_process, prepare, quieten, start, tell
from cegm.lab.train.reporting import Trackers
from cegm.lab.train.resources import with_precision, with_threads
from cegm.lab.train.resume import Resumption, described
from cegm.lab.train.run_config import SAID, RunConfig
from cegm.lab.train.saving import writing
from cegm.lab.train.sharded import shard
from cegm.lab.train.trainer import RowCollator, RunTrainer, trainer_arguments


class RunSummary(Final, frozen=True, kw_only=True):
    """How a run ended, where its folder is, and what the seconds of this process went into."""

    output_dir: str
    spent: dict[str, float]


def train(config: RunConfig) -> RunSummary:
    """Trains one model and writes its run folder.

    Raises:
        ValueError: Something in the configuration or the data cannot work; nothing is left behind.
        NonFiniteError: Loss or gradient was not finite; the weights before that step were not touched.
    """
    quieten()
    begun = time.perf_counter()
    folder = RunFolder.of(config)
    resumption = start(config, folder)
    config = with_threads(config, resumption)
    parts = prepare(config, int(os.environ.get("WORLD_SIZE", "1")))
    config = with_precision(config, parts.model, resumption)
    arguments = trainer_arguments(config, folder)
    if config.sharding == "fsdp":
        shard(cast(PreTrainedModel, parts.model))
    if resumption is not None:
        resumption.require_same(config, parts.corpus.digest(), arguments.world_size)
    tell(parts.notes)
    loading = time.perf_counter() - begun
    if not is_main_process():
        return _Run(config, folder, parts, arguments, resumption, loading).go(lambda: None)
    with folder.held(), folder.undone_on_error() as keep:
        run = _Run(config, folder, parts, arguments, resumption, loading)
        if not config.is_fresh:
            print(config.pace)
        return run.go(keep)


class _Run:
    """One run, built and ready to go. Only the main process writes."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        parts: Parts,
        arguments: SFTConfig,
        resumption: Resumption | None,
        loading: float,
    ) -> None:
        self.config, self.folder, self.parts, self.resumption = config, folder, parts, resumption
        self.audit: AuditLog | None = None
        self.metrics: MetricsFile | None = None
        if is_main_process():
            if resumption is None:
                folder.require_free()  # another process may have come and gone since `start`
            self.audit, self.metrics = AuditLog(folder.audit), MetricsFile(folder.metrics)
        begun = time.perf_counter()
        self._card_content = card_of(config, parts.model, parts.tokenizer, folder.card)
        self._card: ContextCard | None = None
        if self._card_content is not None:
            self._card = ContextCard.of_content(self._card_content, str(config.retain))
        self._fisher = fisher_of(config, parts.model, parts.tokenizer)
        looking = time.perf_counter() - begun
        self.trainer = self._build(arguments)
        self.trainer.remembered = self._remembered
        self.meter = self.trainer.meter
        self.meter.spent = {"loading": loading, "looking at known text": looking if config.retain else 0.0}
        self.validation = Validation(parts.held_out, self.metrics, self.meter, config.eval_steps)
        self.bar = ProgressBar(self.meter) if config.progress and self.metrics is not None else None
        self._add_callbacks()

    def _build(self, arguments: SFTConfig) -> RunTrainer:
        arguments.dataset_kwargs = {"skip_prepare_dataset": True}  # all rows are made already
        trainer = RunTrainer(
            self.config,
            self.folder,
            self.audit,
            self.resumption,
            self._card or self._fisher,
            model=self.parts.model,
            args=arguments,
            data_collator=RowCollator(pad_token_id=self.parts.tokenizer.pad_token_id),
            train_dataset=self.parts.rows,
            processing_class=self.parts.tokenizer,
        )
        trainer.create_optimizer()
        return trainer

    def _add_callbacks(self) -> None:
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.add_callback(Clock(self.meter))
        self._add_trackers()
        if self.config.logging_steps and (self.metrics is not None or self.trainer.is_sharded):
            self.trainer.add_callback(MetricsWriter(self.metrics, self.meter, self.config.logging_steps))
        self.trainer.add_callback(self.validation)
        if self.bar is not None:
            self.trainer.add_callback(self.bar)

    def _add_trackers(self) -> None:
        """Lets trackers hear the lines of `metrics.jsonl`, and not the trainer's few numbers."""
        trackers = Trackers(self.trainer)
        for callback in trackers.listeners:
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = str(self.folder.tensorboard)
        if self.metrics is not None:
            self.metrics.heard_by = trackers.hear

    def go(self, keep: Callable[[], None]) -> RunSummary:
        """Trains to the end; `keep` is called before an error that comes after a step, or from numbers that are not finite: its traces stay."""
        self._open()
        first = 0 if self.resumption is None else self.resumption.state.step
        try:
            checkpoint = None if self.resumption is None else str(self.resumption.checkpoint)
            self.trainer.train(resume_from_checkpoint=checkpoint)
            summary = self._summary()
            with self.meter.during("saving"):
                self._finish(summary)
        except BaseException as error:
            if isinstance(error, NonFiniteError) or self.trainer.state.global_step > first:
                keep()
            if self.audit is not None and not isinstance(error, NonFiniteError):  # that one is recorded with its place
                with suppress(OSError):  # a full disk may be what stopped the run
                    self.audit.record("stopped", step=self.trainer.state.global_step, error=type(error).__name__)
            raise
        finally:
            if self.bar is not None:
                self.bar.stop()
            if self.audit is not None:
                self.folder.tidy()
        return summary

    def _open(self) -> None:
        """Writes what is known before the first step, and goes on from the checkpoint."""
        resumption = self.resumption
        if resumption is not None:
            self.meter.restore(resumption.state.meter)
            self.validation.restore(resumption.state.validation)
        if self.audit is None or self.metrics is None:
            return
        if resumption is not None and self.folder.holds_run:
            self.metrics.cut_to(resumption.state.metrics_bytes, resumption.state.metrics_hash)
        self._hashes = {"data": self.parts.corpus.digest(), "initial_weights": self.parts.initial_hash}
        self._model = model_hash(self.config.model_name_or_path) if self.config.save_steps else None
        write_config(
            self.folder, self.config, self._hashes, self._model_facts(), self._token_facts(), self.parts.left_out
        )
        said = {name: getattr(self.config, name) for name in SAID}
        facts = {**self._hashes, **said, "config": sha256(self.folder.config)}
        if self._card is not None and self._card_content is not None:
            facts["card"] = self._card.hash
            write_whole(self.folder.card, self._card_content)
        if resumption is None:
            self.audit.record(
                "start", method=self.config.method, seed=self.config.seed, left_out=self.parts.left_out, **facts
            )
            return
        self.audit.record(
            "resume",
            step=resumption.state.step,
            checkpoint=resumption.checkpoint.name,
            manifest=resumption.manifest,
            optimizer="restored" if resumption.has_optimizer else "fresh",
            notes=resumption.notes,
            **facts,
        )

    def _remembered(self, weights: str) -> RunState:
        """What a checkpoint of the main process keeps, for `_open` and for `Resumption`."""
        assert self.metrics is not None
        return RunState(
            **described(self.config),
            step=self.trainer.state.global_step,
            weights=weights,
            data=self._hashes["data"],
            model=self._model,
            processes=self.trainer.args.world_size,
            metrics_bytes=self.metrics.size(),
            metrics_hash=self.metrics.hash(),
            meter=self.meter.state(),
            validation=self.validation.state(),
        )

    def _model_facts(self) -> dict[str, int]:
        parts = self.parts
        return {
            "parameters": count(parts.model),
            "vocabulary": len(parts.tokenizer),
            "max_length": self.config.max_length,
        }

    def _token_facts(self) -> dict[str, int]:
        """Tokens in the data; of conversations at most, because they are cut at `max_length`."""
        held_out = self.validation.held_out
        train = len(self.parts.rows) * self.config.max_length
        return {"train": train, "validation": held_out.predicted, "validation_bytes": held_out.bytes}

    def _explanation(self) -> str:
        trainer, parts = self.trainer, self.parts
        model, step = trainer.accelerator.unwrap_model(trainer.model), trainer.state.global_step
        return explanation(model, trainer.optimizer, parts.rows, parts.tokenizer, self.config.explain_rows, step)

    def _summary(self) -> RunSummary:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return RunSummary(
            output_dir=self.config.output_dir,
            steps=self.trainer.state.global_step,
            tokens=self.meter.tokens,
            seconds=self.meter.seconds,
            loss=self.validation.last.loss,
            bits_per_byte=self.validation.last.bits_per_byte,
            batch_hash=self.meter.batch_hash,
            initial_hash=self.parts.initial_hash,
            final_hash=weights_hash(model),
            median_step_seconds=self.meter.median_step_seconds(),
            optimizer_state_bytes=self.trainer.optimizer_state_bytes(),
            memory_bytes=self.meter.memory_bytes(),
            parameters=count(model),
            spikes=self.meter.guard.spikes,
            skipped_steps=self.meter.guard.skipped,
            spent=self.meter.spent,  # which goes on counting while the run is saved
        )

    def _finish(self, summary: RunSummary) -> None:
        written = self.folder.writing / "model"
        if self.audit is not None or self.trainer.is_sharded:  # shards are put together by all
            with writing("the model") if self.audit is not None else nullcontext():
                model = self.trainer.accelerator.unwrap_model(self.trainer.model)
                model.save_pretrained(written, is_main_process=self.audit is not None)
        if self.audit is None or self.metrics is None:
            return
        self.parts.tokenizer.save_pretrained(written)
        final = facts(summary, Final)
        write_card(written, self.config, final)
        move_whole(written, self.folder.model)
        self.metrics.write(Final(**final))
        self.metrics.size()
        files = [self.folder.metrics, *sorted(path for path in self.folder.model.rglob("*") if path.is_file())]
        if self.config.explain_rows:
            files.append(write_whole(self.folder.explanation, self._explanation()))
        self.audit.record(
            "finish",
            step=summary.steps,
            final_hash=summary.final_hash,
            batch_hash=summary.batch_hash,
            files={path.relative_to(self.folder.root).as_posix(): sha256(path) for path in files},
        )

"""SFTTrainer with what one honest run needs: any method's optimizer, a check before every update, hashed batches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from cegm.context.card import ContextCard
from cegm.lab.baselines import METHODS, build_optimizer
from cegm.lab.baselines.lora_null import begin_in_null_space
from cegm.lab.train import trackers
from cegm.lab.train.audit import AuditLog
from cegm.lab.train.callbacks import bare
from cegm.lab.train.clipping import ClipWatch
from cegm.lab.train.conversations import IGNORED
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.guard import Guard
from cegm.lab.train.health import BAD_WEIGHT, NonFiniteError, earliest, find_first_bad
from cegm.lab.train.meter import Meter, tensor_bytes
from cegm.lab.train.resume import Resumption
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.saving import SavingTrainer
from cegm.loss import EntanglementLoss
from cegm.sharding import whole

Known = ContextCard | dict[str, Tensor]
"""What a run retains by: a context card, or a Fisher diagonal by name."""

SMALL_LOGITS = 1 << 26
"""Up to this many logits per micro-batch (256 MiB) they are simply computed. TRL's tiled head saves that memory, but it took 25 ms more on
8 x 256 tokens and 258 words on one CPU core, a large part of a small model's step."""


SAME = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "weight_decay", "max_grad_norm", "warmup_steps",
    "lr_scheduler_type", "seed", "bf16", "gradient_checkpointing", "max_length",
)  # fmt: skip
"""Options that have the same name and meaning in TRL."""


class RowCollator(DataCollatorForLanguageModeling):
    """TRL's collator, which also lets the row numbers through, so that an error can name them."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """A padded batch; `row` is (rows,)."""
        batch: dict[str, Any] = super().torch_call(examples)
        batch["row"] = torch.tensor([example["row"] for example in examples])
        return batch


def trainer_arguments(config: RunConfig, folder: RunFolder) -> SFTConfig:
    """The run's settings in the words of TRL; what nobody asked for is switched off."""
    return SFTConfig(
        output_dir=str(folder.writing),
        **{name: getattr(config, name) for name in SAME},
        max_steps=config.steps or -1,
        num_train_epochs=config.num_train_epochs or 1.0,
        data_seed=config.seed,
        report_to=trackers.listed(config.report_to),
        logging_strategy="no",  # trackers hear what metrics.jsonl says
        save_strategy="steps" if config.save_steps else "no",
        save_steps=config.save_steps or 500,
        save_only_model=config.sharding == "fsdp",  # of shards, RunTrainer saves the rest by itself
        eval_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        disable_tqdm=True,
        log_level="error",
    )


def build(config: RunConfig, model: nn.Module, known: Known | None = None) -> torch.optim.Optimizer:
    """The optimizer of the configured method for all trainable parameters of `model`, which retains by what is known."""
    options = dict(config.optimizer_options)
    if known is not None and METHODS[config.method].retains:
        options["retain"] = known
    elif isinstance(known, ContextCard):
        begin_in_null_space(model, known)
    if config.aux_lr is not None:
        options["aux_lr"] = config.aux_lr
    return build_optimizer(config.method, model, lr=config.learning_rate, weight_decay=config.weight_decay, **options)


def build_loss(config: RunConfig, model: nn.Module) -> Callable[..., Tensor] | None:
    """The entanglement loss of `model`, or None when `beta` is 0 and nothing may change."""
    if config.beta == 0:
        return None
    return EntanglementLoss(config.beta, config.kernel, config.stop_gradient).for_model(model)  # type: ignore[arg-type]


class RunTrainer(SavingTrainer):
    """One run; arguments are those of `SavingTrainer`, and what it retains by."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        audit: AuditLog | None,
        resumption: Resumption | None,
        known: Known | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(config, folder, audit, resumption, **arguments)
        self._known = known
        self.meter = Meter(self.args.device, guard=Guard(config.on_nonfinite))
        self._clip_watch = ClipWatch()
        self._micro_batches: list[tuple[dict[str, Tensor], list[int]]] = []
        self._step_loss: list[Tensor] = []
        self._step_tokens = 0
        self._loss_before = torch.tensor(0.0)
        self._entangled = build_loss(config, cast(nn.Module, self.model))
        if self._entangled is not None and self.aux_loss_enabled:
            raise ValueError(
                f"beta={config.beta} does not go with a router's own loss; set router_aux_loss_coef to 0 in the model's config"
            )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The method's optimizer, built once; one scheduler moves all its groups."""
        if self.optimizer is None:
            self.optimizer = build(self.config, cast(nn.Module, self.model if model is None else model), self._known)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def optimizer_state_bytes(self) -> int:
        """Bytes of the optimizer's state; of shards, those of all processes."""
        own = tensor_bytes(list(bare(self.optimizer).state.values()))
        if not self.is_sharded:
            return own
        return int(self.accelerator.reduce(torch.tensor(own, device=self.args.device)))  # type: ignore[no-untyped-call]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.meter.during("saving"):
            super()._save_checkpoint(model, trial)

    # ------------------------------------------------------------------ one step

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Fetches the micro-batches of a step; the step's clock starts here."""
        self.meter.start_step()
        self._micro_batches, self._step_loss, self._step_tokens = [], [], 0
        self._loss_before = self._tr_loss.clone()
        samples: tuple[list[Any], Any] = super().get_batch_samples(epoch_iterator, num_batches, device)
        return samples

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward pass of one micro-batch."""
        rows = inputs.pop("row").tolist()
        self._micro_batches.append((dict(inputs), rows))
        self._step_tokens += self.meter.add_batch(inputs["input_ids"], inputs.get("attention_mask"))
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        self._step_loss.append(loss)
        if len(self._step_loss) == self.current_gradient_accumulation_steps:
            self.meter.end_forward_backward()
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood over the tokens of the whole step, as SFTTrainer's; directly where logits are few.

        With `beta` it is the total, entanglement included.
        """
        if self._entangled is not None and not return_outputs:
            return self._entangled_loss(model, inputs, num_items_in_batch)
        few = inputs["input_ids"].numel() * len(self._tokenizer) <= SMALL_LOGITS
        if return_outputs or self.aux_loss_enabled or not few:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[no-untyped-call]
        labels = inputs["labels"][:, 1:]  # (rows, tokens - 1)
        arguments = {name: value for name, value in inputs.items() if name != "labels"}
        logits = model(**arguments, use_cache=False).logits[:, :-1]  # (rows, tokens - 1, vocabulary)
        total = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        if num_items_in_batch is None:
            return total / (labels != IGNORED).sum().clamp(min=1)
        # Counted over all processes, whose gradients DDP averages.
        return total * self.accelerator.num_processes / num_items_in_batch

    def _entangled_loss(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any) -> Tensor:
        arguments = {name: value for name, value in inputs.items() if name != "labels"}
        outputs = model(**arguments, use_cache=False)
        loss = cast(Callable[..., Tensor], self._entangled)(outputs, inputs["labels"], num_items_in_batch)
        return loss if num_items_in_batch is None else loss * self.accelerator.num_processes

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        """Not deferred: until then every process would hold the whole gradient of every weight."""
        yield

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Checks loss and gradients, then clips; transformers calls it right before the update, on all processes."""
        parameters = [p for p in model.parameters() if p.grad is not None]
        total = get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = whole(total)
        self._gather_step()
        self.meter.gradient_norm, self.meter.clip_factor = float(norm), 1.0
        self.meter.skipped = not self._is_finite()
        if self.meter.skipped:
            self._skip_update()
            return norm
        limit = self.args.max_grad_norm
        if 0 < limit < self.meter.gradient_norm:
            clip_grads_with_norm_(parameters, limit, total)
            self.meter.clip_factor = limit / (self.meter.gradient_norm + 1e-6)  # as torch computes it
        self._watch_clipping()
        observe = getattr(bare(self.optimizer), "observe_loss", None)
        if observe is not None:
            observe(self.meter.loss)
        return norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float:
        """Clipping may be off, and then transformers skips `_clip_grad_norm`; the check must not be skipped."""
        return self._clip_grad_norm(model) if grad_norm is None else grad_norm

    def _gather_step(self) -> None:
        """Loss and tokens of the step over all processes, so that all of them stop together or not at all."""
        facts = torch.stack(
            [torch.stack(self._step_loss).sum().double(), torch.tensor(float(self._step_tokens)).to(self.args.device)]
        )
        if self.accelerator.num_processes > 1:
            facts = self.accelerator.gather(facts[None])  # (processes, 2)
            facts = torch.stack([facts[:, 0].mean(), facts[:, 1].sum()])
        loss, tokens = facts.tolist()
        self.meter.loss = loss
        self.meter.tokens += int(tokens)

    def _is_finite(self) -> bool:
        """Whether the step may update the weights; notes spikes, and what is wrong where something is (NonFiniteError unless skipped)."""
        meter, step = self.meter, self.state.global_step + 1
        numbers = {"loss": str(meter.loss), "gradient_norm": str(meter.gradient_norm)}
        if math.isfinite(meter.gradient_norm) and math.isfinite(meter.loss):
            if meter.guard.watch(meter.loss, meter.gradient_norm):
                rows = [row for _, rows in self._micro_batches for row in rows]
                self._record("spike", step=step, score=meter.guard.score, rows=rows, **numbers)
            return True
        found = find_first_bad(self.accelerator.unwrap_model(self.model), self._micro_batches)
        layer, rows = earliest(gather_object([found]))
        before = meter.guard.skipped
        # The next batch cannot mend a weight.
        skips = not layer.startswith(BAD_WEIGHT) and meter.guard.skip(step)
        self._record("skip" if skips else "non_finite", step=step, layer=layer, rows=rows, **numbers)
        if not skips:
            raise NonFiniteError(layer, step, rows, before)
        return False

    def _skip_update(self) -> None:
        """Gives the step up: the one call of the optimizer's `step` that follows does nothing, and nothing of the step is left.

        The schedule goes on, so that a run ends at the learning rate it was to end at.
        """
        optimizer = bare(self.optimizer)
        update = optimizer.step

        def skip(closure: Any = None) -> None:
            optimizer.step = update  # type: ignore[method-assign]

        optimizer.step = skip  # type: ignore[assignment, method-assign]
        optimizer.zero_grad()  # contexts, too
        self._tr_loss = self._loss_before

    def _watch_clipping(self) -> None:
        told = self._clip_watch.check(
            self.meter.clip_factor, self.meter.gradient_norm, bare(self.optimizer).param_groups
        )
        if told is not None:
            warnings.warn(told, stacklevel=2)
            self._record("clipping", step=self.state.global_step + 1, warning=told)

    def _record(self, event: str, **facts: Any) -> None:
        if self.audit is not None:
            self.audit.record(event, **facts)

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """The run writes its own card."""

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere."""

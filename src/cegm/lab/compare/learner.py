"""A model that takes whole training steps as a run of its configuration would, without a trainer around it, also by the clock and the byte."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import build, build_loss

BLOCK = 25
"""Steps timed together: as many as lie between two refreshes of the recommended preset."""

Made = TypeVar("Made")


class Learner:
    """Model, optimizer and loss of one run. `copy.deepcopy` copies all three, and the copy goes on as the original would.

    Args:
        config: The run.
        model: Its model; it goes to the GPU if there is one.

    Attributes:
        model: In training mode.
        optimizer: The method's, over the model's weights.
        device: Where batches have to be.
    """

    def __init__(self, config: RunConfig, model: nn.Module) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).train()
        if config.gradient_checkpointing:
            cast(Any, self.model).gradient_checkpointing_enable()
        self.optimizer: Any = build(config, model)
        self._loss = build_loss(config, model)
        self._config = config

    def gradients(self, micro_batches: Sequence[Tensor], strength: float = 1.0) -> tuple[Tensor, Tensor]:
        """Forward and backward pass of a step, and its clipping.

        Args:
            micro_batches: (rows, tokens) each.
            strength: Multiplies the gradient before it is clipped.

        Returns:
            Mean loss of the micro-batches, nats per token, and the norm of the gradient before clipping; scalars.
        """
        losses = []
        for tokens in micro_batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self._config.bf16)):
                loss = self._forward(tokens)
            (strength * loss / len(micro_batches)).backward()
            losses.append(loss.detach())
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self._config.max_grad_norm:
            clip_grads_with_norm_(parameters, self._config.max_grad_norm, norm)
        return torch.stack(losses).mean(), norm

    def update(self, loss: Tensor) -> None:
        """The rest of the step: the optimizer's update from these gradients, of which `gradients` returned the loss."""
        if hasattr(self.optimizer, "observe_loss"):
            self.optimizer.observe_loss(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _forward(self, tokens: Tensor) -> Tensor:
        if self._loss is None:
            loss: Tensor = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
            return loss
        return self._loss(self.model(input_ids=tokens, use_cache=False), tokens)


class Timed(Learner):
    """A learner that takes its steps on one fixed batch, (rows, tokens) in every micro-batch, against the clock."""

    def __init__(self, config: RunConfig, model: nn.Module, tokens: Tensor) -> None:
        super().__init__(config, model)
        self._batch = [tokens.to(self.device)] * config.gradient_accumulation_steps

    def block(self, steps: int) -> float:
        """Seconds that whole steps take: forward, backward, clipping, update."""
        self._wait()
        start = time.perf_counter()
        for _ in range(steps):
            loss, _ = self.gradients(self._batch)
            self.update(loss)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def in_turns(timed: Sequence[Timed], rounds: int, steps: int) -> Iterator[list[float]]:
    """Times blocks of steps, A B C and then C B A in each round, so that no drift of the machine favours anybody.

    Yields:
        Seconds of a block of each, in the order given; twice per round.
    """
    for turn in range(2 * rounds):
        order = range(len(timed)) if turn % 2 == 0 else reversed(range(len(timed)))
        seconds = {place: timed[place].block(steps) for place in order}
        yield [seconds[place] for place in range(len(timed))]


def peak_bytes(work: Callable[[], Made]) -> tuple[Made, int]:
    """What `work` returns, and the most bytes of tensors that it held at a time beyond those held before it.

    Counted by torch's own allocators, to the byte and the same every time, unlike a resident set, which holds the
    libraries too and what the allocator keeps. What libraries such as LAPACK take for themselves is not in it.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return work(), torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would announce every start and stop
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        made = work()
    recorded = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in recorded if event.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return made, peak

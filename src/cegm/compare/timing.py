"""Whole training steps by the clock and by the byte: a model that trains on one batch, blocks of steps in turns, peak memory."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from cegm.train.config import RunConfig
from cegm.train.trainer import build, build_loss

BLOCK = 25
"""Steps timed together: as many as lie between two refreshes of the recommended preset."""

Made = TypeVar("Made")


class Timed:
    """A model that takes whole training steps on one fixed batch, as a run of this configuration would.

    Args:
        config: The run.
        model: Its model; it goes to the GPU if there is one.
        tokens: (rows, tokens), the batch of every micro-batch.
    """

    def __init__(self, config: RunConfig, model: nn.Module, tokens: Tensor) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(device).train()
        if config.gradient_checkpointing:
            cast(Any, self.model).gradient_checkpointing_enable()
        self.optimizer: Any = build(config, model)
        self._loss = build_loss(config, model)
        self._config, self._tokens = config, tokens.to(device)

    def block(self, steps: int) -> float:
        """Takes whole steps: forward, backward, clipping, update.

        Returns:
            Seconds of all of them.
        """
        self._wait()
        start = time.perf_counter()
        for _ in range(steps):
            self._step()
        self._wait()
        return time.perf_counter() - start

    def _step(self) -> None:
        micro_batches = self._config.gradient_accumulation_steps
        for _ in range(micro_batches):
            with torch.autocast(self._tokens.device.type, torch.bfloat16, enabled=self._config.bf16):
                loss = self._forward()
            (loss / micro_batches).backward()
        if self._config.max_grad_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._config.max_grad_norm)
        if hasattr(self.optimizer, "observe_loss"):
            self.optimizer.observe_loss(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _forward(self) -> Tensor:
        if self._loss is None:
            loss: Tensor = self.model(input_ids=self._tokens, labels=self._tokens, use_cache=False).loss
            return loss
        return self._loss(self.model(input_ids=self._tokens, use_cache=False), self._tokens)

    def _wait(self) -> None:
        if self._tokens.device.type == "cuda":
            torch.cuda.synchronize(self._tokens.device)


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

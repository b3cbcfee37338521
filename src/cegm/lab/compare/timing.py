"""Whole training steps by the clock and by the byte: a model that trains on one batch, blocks of steps in turns, peak memory."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from cegm.lab.compare.learner import Learner
from cegm.lab.train.run_config import RunConfig

BLOCK = 25
"""Steps timed together: as many as lie between two refreshes of the recommended preset."""

Made = TypeVar("Made")


class Timed(Learner):
    """A learner that takes its steps on one fixed batch, against the clock.

    Args:
        config: The run.
        model: Its model; it goes to the GPU if there is one.
        tokens: (rows, tokens), the batch of every micro-batch.
    """

    def __init__(self, config: RunConfig, model: nn.Module, tokens: Tensor) -> None:
        super().__init__(config, model)
        self._batch = [tokens.to(self.device)] * config.gradient_accumulation_steps

    def block(self, steps: int) -> float:
        """Takes whole steps: forward, backward, clipping, update.

        Returns:
            Seconds of all of them.
        """
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

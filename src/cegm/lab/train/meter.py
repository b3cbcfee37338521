"""What a run has done so far: seconds, tokens, batches. Only training counts; evaluation and logging stop the clock."""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from msgspec import structs
from torch import Tensor
from torch.utils._pytree import tree_leaves

from cegm.lab.records import MeterState
from cegm.lab.train.guard import Guard
from cegm.sharding import local

WARM_UP_STEPS = 3
"""First steps left out of the median step time where there are more: they allocate and compile."""

KEPT_TIMES = 1000
"""Of so many steps the times are kept, so that memory does not grow; their median hardly changes with more."""

TIMES = ("step_seconds", "forward_backward_seconds")


@dataclass
class Meter:
    """Clocks and counters of one process.

    Attributes:
        device: Where the model is; a GPU is waited for before a clock is read.
        seconds: Training time, evaluation, logging and checkpoints excluded.
        tokens: Tokens seen, padding excluded, all processes.
        batch_hash: sha256 chained over the token ids of every row so far, in order, hex; this process's rows.
        step_seconds: Whole training step, one entry per step, the last `KEPT_TIMES`.
        forward_backward_seconds: The part of it before clipping and the optimizer.
        line_losses: Loss of each step with an update since the last `train` line of `metrics.jsonl`.
        line_factors: Clip factor of each step since that line.
        line_tokens: `tokens` at that line.
        loss: Mean over this step's tokens, nats.
        gradient_norm: Before clipping.
        clip_factor: What clipping multiplied the gradient by, in (0, 1].
        refreshed: Whether this step recorded contexts.
        skipped: Whether this step was given up before its update.
        guard: Counts skipped steps and spikes.
        spent: Seconds of this process by what they went into, training steps among them; a resumed run begins at none.
    """

    device: torch.device
    seconds: float = 0.0
    tokens: int = 0
    batch_hash: str = ""
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))
    forward_backward_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))
    loss: float = float("nan")
    gradient_norm: float = float("nan")
    clip_factor: float = 1.0
    refreshed: bool = False
    skipped: bool = False
    guard: Guard = field(default_factory=Guard)
    line_losses: list[float] = field(default_factory=list)
    line_factors: list[float] = field(default_factory=list)
    line_tokens: int = 0
    spent: dict[str, float] = field(default_factory=dict)
    _start: float = 0.0

    def start_step(self) -> None:
        """Starts the clock of a step, before its batches are fetched."""
        self._start = self._now()

    def end_forward_backward(self) -> None:
        """All micro-batches are through; what follows until `end_step` is clipping and the optimizer."""
        self.forward_backward_seconds.append(self._now() - self._start)

    def end_step(self) -> None:
        """Stops the clock, when the weights are updated."""
        self.step_seconds.append(self._now() - self._start)
        self.seconds += self.step_seconds[-1]
        self.spend("training", self.step_seconds[-1])

    def spend(self, what: str, seconds: float) -> None:
        """Counts seconds towards `what`."""
        self.spent[what] = self.spent.get(what, 0.0) + seconds

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Counts the seconds of a block towards `what`."""
        begun = self._now()
        try:
            yield
        finally:
            self.spend(what, self._now() - begun)

    def add_batch(self, token_ids: Tensor, mask: Tensor | None) -> int:
        """Chains a micro-batch, (rows, tokens), without what its mask has 0 for, into the hash; returns its tokens."""
        count = 0
        masks = [None] * len(token_ids) if mask is None else mask.cpu().bool()
        for row, kept in zip(token_ids.cpu(), masks, strict=True):
            ids = row if kept is None else row[kept]
            self.batch_hash = hashlib.sha256(bytes.fromhex(self.batch_hash) + ids.numpy().tobytes()).hexdigest()
            count += ids.numel()
        return count

    def median_step_seconds(self) -> float:
        """Median over the known steps after warm-up, seconds; NaN before the first step."""
        times = list(self.step_seconds)
        steady = times if len(times) == KEPT_TIMES else times[WARM_UP_STEPS:] or times
        return statistics.median(steady) if steady else float("nan")

    def state(self) -> MeterState:
        """What a resumed run goes on from."""
        values = {name: getattr(self, name) for name in MeterState.__struct_fields__}
        times = {name: list(values[name]) for name in TIMES}
        return MeterState(**{**values, **times, "guard": self.guard.state()})

    def restore(self, state: MeterState) -> None:
        """Goes on from what `state` returned."""
        for name, value in structs.asdict(state).items():
            if name == "guard":
                self.guard.restore(value)
            else:
                setattr(self, name, deque(value, maxlen=KEPT_TIMES) if name in TIMES else value)

    def memory_bytes(self) -> int:
        """Peak memory: resident set of the process on CPU, allocated on a GPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else peak_resident_bytes()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def tensor_bytes(held: Any) -> int:
    """Bytes of all tensors in nested lists and dictionaries, such as the state of an optimizer; of shards, those held here."""
    tensors = [local(leaf) for leaf in tree_leaves(held) if isinstance(leaf, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_resident_bytes() -> int:
    """Peak resident set of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before exec
        line = next(line for line in status.read_bytes().splitlines() if line.startswith(b"VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

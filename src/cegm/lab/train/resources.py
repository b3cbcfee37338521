"""What a run takes of the machine where nobody said: threads that find a free core, and passes in the precision that is fast here."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

import psutil
import torch
from torch import nn
from torch.nn.functional import linear

from cegm.lab.train.prepare import count
from cegm.lab.train.resume import Resumption
from cegm.lab.train.run_config import RunConfig

LOOK = 0.3
"""Seconds for which other processes are looked at."""

TURNS = 5
SHAPE = (256, 576, 1536)
"""Tokens, inputs and outputs of the layer that is timed: a feed-forward one of SmolLM2-135M."""

FASTER = 0.8
"""Share of float32's seconds below which bfloat16 is taken; it rounds, and trials are noisy."""

LARGE = 20_000_000
"""Weights from which a trial pays; a smaller model ends soon in float32, and to the same bits on every machine."""


def with_threads(config: RunConfig, resumption: Resumption | None) -> RunConfig:
    """`config` with the threads that were asked for, or the resumed run had, or find a free core; torch has them from now on."""
    before = int(resumption.state.config.get("threads", 0)) if resumption is not None else 0
    threads = config.threads or before or free_threads()
    if threads < torch.get_num_threads() and not (config.threads or before):
        told = f"{threads} of {torch.get_num_threads()} threads, because other work keeps the rest of the cores busy"
        print(f"cegm: {told} (--threads N wins)", file=sys.stderr)
    torch.set_num_threads(threads)
    return replace(config, threads=threads)


def free_threads() -> int:
    """Torch's threads, as many as find a core that nobody uses, and at least one; all where OMP_NUM_THREADS says how many.

    All threads of a product wait for the slowest, so those without a core of their own cost more than they bring.
    """
    most = torch.get_num_threads()
    if most == 1 or "OMP_NUM_THREADS" in os.environ:
        return most
    cores = os.cpu_count() or 1
    busy = cores * psutil.cpu_percent(interval=LOOK) / 100
    return max(1, min(most, round(cores - busy)))


def with_precision(config: RunConfig, model: nn.Module, resumption: Resumption | None) -> RunConfig:
    """`config` with float32 or bfloat16 for the passes: as asked for, as the resumed run had it, or by trial.

    A trial is for large models with trained weights on one processor; all others have float32.
    """
    if config.bf16 is not None:
        return config
    if resumption is not None:
        return replace(config, bf16=bool(resumption.state.config.get("bf16")))
    alone = os.environ.get("WORLD_SIZE", "1") == "1" and not torch.cuda.is_available()
    if not alone or config.is_fresh or count(model) < LARGE:
        return replace(config, bf16=False)
    share = bfloat16_share()
    taken = "bfloat16 autocast" if share < FASTER else "float32"
    told = f"passes in {taken}: a trial layer takes {share:.2f} times as long in bfloat16 as in float32 here"
    print(f"cegm: {told} (--bf16 true or false wins)", file=sys.stderr)
    return replace(config, bf16=share < FASTER)


def bfloat16_share() -> float:
    """Seconds of a layer's passes under bfloat16 autocast over those in float32, each at its best of some turns; takes about .2 s."""
    tokens, inputs, outputs = SHAPE
    contexts = torch.ones(tokens, inputs, requires_grad=True)
    weight = torch.ones(outputs, inputs, requires_grad=True)

    def seconds(in_bfloat16: bool) -> float:
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            linear(contexts, weight).sum().backward()
        return time.perf_counter() - begun

    seconds(True), seconds(False)  # the first of each prepares its kernels
    turns = [(seconds(True), seconds(False)) for _ in range(TURNS)]
    short, exact = (min(times) for times in zip(*turns, strict=True))  # other work can only add
    return short / exact

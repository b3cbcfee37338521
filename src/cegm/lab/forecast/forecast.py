"""A forecast: per method the memory, time, communication and money of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cegm.assignment import block_of
from cegm.lab.forecast.exchange import Sent, owned, sent_by_ddp, sent_by_fsdp
from cegm.lab.forecast.machine import Machine
from cegm.lab.forecast.memory import Memory, adamw_temporaries, refresh_temporaries, update_temporaries
from cegm.lab.forecast.passes import Passes, meta_model, passes, settings_of
from cegm.lab.forecast.plan_config import PlanConfig
from cegm.lab.forecast.weights import Weight, weights_of
from cegm.lab.train.run_config import RunConfig

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Seconds:
    """Per step of the busiest device, each as a mean over steps.

    Attributes:
        passes: Forward and backward, all micro-batches.
        exchange: Of gradients and gathered weights; it runs beside the passes.
        update: The optimizer's step without refreshes.
        owners: Exchange with the owners of matrices.
        refresh: Recording, exchanging and mapping contexts, over the steps between two refreshes.
    """

    passes: float
    exchange: float
    update: float
    owners: float
    refresh: float

    @property
    def step(self) -> float:
        """A mean step: exchanges beside the passes cost only where they take longer; the rest comes after."""
        return max(self.passes, self.exchange) + self.update + self.owners + self.refresh


@dataclass(frozen=True)
class Estimate:
    """Of one method.

    Attributes:
        run: Method, options, batch and steps.
        weights: What each trainable weight costs.
        memory: Of the busiest device.
        sent: By the busiest device.
        refresh_every: Steps between two refreshes; 0 without contexts.
        passes_operations: Of the passes of one device and step.
        update_operations: Of the optimizer's step on the busiest device, matrix products alone.
        refresh_operations: Of recording and mapping, on the busiest device, in a step that refreshes.
        seconds: Of a mean step.
        money: Of the run; None without a price.
    """

    run: RunConfig
    weights: list[Weight]
    memory: Memory
    sent: Sent
    refresh_every: int
    passes_operations: float
    update_operations: float
    refresh_operations: float
    seconds: Seconds
    money: float | None

    @property
    def hours(self) -> float:
        """Of the run."""
        return self.seconds.step * (self.run.steps or 0) / SECONDS_PER_HOUR


@dataclass(frozen=True)
class Forecast:
    """All methods on one machine.

    Attributes:
        config: What was asked.
        machine: Where.
        devices: How many share the batch.
        parameters: Of the model.
        passes: Of a micro-batch.
        fullest_owner: Most matrices that one device owns; 0 where every device updates all.
        idle: Devices that own no matrix.
        estimates: Per method.
    """

    config: PlanConfig
    machine: Machine
    devices: int
    parameters: int
    passes: Passes
    fullest_owner: int
    idle: int
    estimates: list[Estimate]


def forecast(config: PlanConfig, runs: Sequence[RunConfig] = ()) -> Forecast:
    """What runs of one model would take.

    Args:
        config: Where, and which runs unless these are given.
        runs: One per method.

    Raises:
        ValueError: Something is missing or does not fit, in one line.
    """
    machine, runs = config.read_machine(), runs or [config.run(method) for method in config.method_list]
    devices = config.devices or machine.devices
    machine.link(devices)
    settings = settings_of(runs[0])
    each = passes(settings, runs[0])
    cases = [_Case(config, machine, devices, run, meta_model(settings, run), each) for run in runs]
    parts = next((case.parts for case in cases if config.sharding == "fsdp" and any(case.parts)), [])
    return Forecast(
        config,
        machine,
        devices,
        sum(p.numel() for p in cases[0].model.parameters()),
        each,
        max(map(len, parts), default=0),
        sum(not part for part in parts),
        [case.estimate() for case in cases],
    )


class _Case:
    """One method, and everything that its estimate is made from."""

    def __init__(
        self, config: PlanConfig, machine: Machine, devices: int, run: RunConfig, model: nn.Module, passes: Passes
    ) -> None:
        self.config, self.machine, self.devices, self.run, self.passes = config, machine, devices, run, passes
        self.model, self.sharded = model, config.sharding == "fsdp"
        self.weights = weights_of(run, model, machine.kind, machine.bfloat16_flops is not None)
        self.parts = owned(self.weights, devices)
        # Without shards every device does everything; with them the busiest is the one with most work.
        self.busiest = max(self.parts, key=lambda part: sum(w.work for w in part))
        self.mine = self.busiest if self.sharded else [w for w in self.weights if w.pieces]
        self.shares = [self._share(weight) for weight in self.weights]

    def _share(self, weight: Weight) -> float:
        """Part of the update of a weight that the busiest device makes."""
        if not self.sharded:
            return 1.0
        return float(weight in self.busiest) if weight.pieces else weight.shard(self.devices)

    def _total(self, cost: Callable[[Weight], float]) -> float:
        """Of what the busiest device does itself."""
        return sum(share * cost(weight) for share, weight in zip(self.shares, self.weights, strict=True))

    def estimate(self) -> Estimate:
        run, micro_batches = self.run, self.run.gradient_accumulation_steps
        tokens = run.per_device_train_batch_size * run.max_length * micro_batches
        every = max((w.refresh_every for w in self.weights), default=0)
        out = sent_by_ddp(self.weights, self.devices)
        if self.sharded:
            gathered = self._pass_bytes * sum(p.numel() for p in self.model.parameters())
            out = sent_by_fsdp(self.weights, self.parts, gathered, micro_batches)
        again = self.passes.again if run.gradient_checkpointing else 0.0
        passes = micro_batches * (self.passes.forward + self.passes.backward + again)
        refresh = tokens * sum(w.capture for w in self.weights) + self._total(lambda w: w.refresh)
        link = self.machine.link(self.devices)
        exact = self.config.update_utilisation * self.machine.peak(torch.float32)
        seconds = Seconds(
            passes / (self.config.utilisation * self.machine.peak(torch.bfloat16 if run.bf16 else torch.float32)),
            (out.gradients + out.weights) / link,
            self._total(self._update_seconds),
            out.matrices / link,
            (refresh / exact + out.contexts / link) / every if every else 0.0,
        )
        price = self.config.price or self.machine.price_per_device_hour
        return Estimate(
            run,
            self.weights,
            self._memory(),
            out,
            every,
            passes,
            self._total(lambda w: w.products + w.mapping),
            refresh,
            seconds,
            None if price is None else seconds.step * (run.steps or 0) / SECONDS_PER_HOUR * self.devices * price,
        )

    def _update_seconds(self, weight: Weight) -> float:
        machine = self.machine
        products = weight.products / machine.peak(weight.precision) + weight.mapping / machine.peak(torch.float32)
        return products / self.config.update_utilisation + weight.traffic / machine.memory_bandwidth

    def _memory(self) -> Memory:
        frozen = sum(p.numel() for p in self.model.parameters() if not p.requires_grad)
        parts = [w.shard(self.devices) if self.sharded else 1.0 for w in self.weights]
        gradients = sum(part * w.bytes for part, w in zip(parts, self.weights, strict=True))
        others = [part * w.bytes for part, w in zip(parts, self.weights, strict=True) if not w.pieces]
        temporaries = max(update_temporaries(self.mine), adamw_temporaries(others, self.machine.kind))
        if self.sharded:
            # A shard of every matrix is sent, each owned one arrives in pieces, is joined, and its direction goes back.
            temporaries += gradients - sum(others) + 3.0 * sum(w.bytes for w in self.mine)
        return Memory(
            gradients + 4.0 * frozen / (self.devices if self.sharded else 1),
            gradients,
            self._total(lambda w: w.state),
            self._gathered() if self.sharded else self._copies(gradients),
            (self.passes.checkpointed if self.run.gradient_checkpointing else self.passes.kept) + self.passes.logits,
            float(sum(w.contexts for w in self.weights)),
            refresh_temporaries(self.mine),
            temporaries,
            self.run.gradient_accumulation_steps > 1,
        )

    @property
    def _pass_bytes(self) -> int:
        """Of an entry in the passes."""
        return 2 if self.run.bf16 else 4

    def _copies(self, gradients: float) -> float:
        """Bytes of DDP's buckets, and of the weights that autocast holds in bfloat16."""
        casts = 2.0 * sum(p.numel() for p in self.model.parameters() if p.ndim > 1) if self.run.bf16 else 0.0
        return casts + (gradients if self.devices > 1 else 0.0)

    def _gathered(self) -> float:
        """Bytes of the whole weights that FSDP holds at a time: two blocks, and what belongs to none."""
        blocks: dict[str, int] = defaultdict(int)
        for name, parameter in self.model.named_parameters():
            block = block_of(name)
            blocks[block if block.rpartition(".")[2].isdigit() else ""] += parameter.numel()
        outside = blocks.pop("", 0)
        return self._pass_bytes * float(outside + sum(sorted(blocks.values())[-2:]))

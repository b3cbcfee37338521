"""A plan: per method the memory, time, communication and money of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cegm.lab.plan.communication import Sent, sent
from cegm.lab.plan.config import PlanConfig
from cegm.lab.plan.machines import Machine
from cegm.lab.plan.memory import Memory, adamw_temporaries, refresh_temporaries, sharded_state, update_temporaries
from cegm.lab.plan.model import Activations, Shape, activations, forward_operations, meta_model, settings_of, shape_of
from cegm.lab.plan.ownership import owned
from cegm.lab.plan.weights import Weight, weights_of
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
        method: Its name.
        weights: What each trainable weight costs.
        memory: Of the busiest device.
        sent: By the busiest device.
        refresh_every: Steps between two refreshes; 0 without contexts.
        passes_operations: Of the passes of one device and step.
        update_operations: Of the optimizer's step on the busiest device, matrix products alone.
        refresh_operations: Of recording and mapping, on the busiest device, in a step that refreshes.
        seconds: Of a mean step.
        hours: Of the run.
        money: Of the run; None without a price.
    """

    method: str
    weights: list[Weight]
    memory: Memory
    sent: Sent
    refresh_every: int
    passes_operations: float
    update_operations: float
    refresh_operations: float
    seconds: Seconds
    hours: float
    money: float | None


@dataclass(frozen=True)
class Plan:
    """All methods on one machine.

    Attributes:
        config: What was asked.
        machine: Where.
        devices: How many share the batch.
        parameters: Of the model.
        activations: Of a micro-batch.
        fullest_owner: Most matrices that one device owns; 0 where every device updates all.
        idle: Devices that own no matrix.
        estimates: Per method.
    """

    config: PlanConfig
    machine: Machine
    devices: int
    parameters: int
    activations: Activations
    fullest_owner: int
    idle: int
    estimates: list[Estimate]

    @property
    def run(self) -> RunConfig:
        """Of the first method; what all share."""
        return self.config.run(self.config.method_list[0])


def plan(config: PlanConfig) -> Plan:
    """Plans every method.

    Raises:
        ValueError: Something is missing or does not fit, in one line.
    """
    machine, run = config.read_machine(), config.run(config.method_list[0])
    devices = config.devices or machine.devices
    machine.link(devices)
    settings = settings_of(run)
    shape, model = shape_of(settings), meta_model(settings, run)
    kept = activations(settings, run)
    estimates: list[Estimate] = []
    parts: list[list[Weight]] = []
    for method in config.method_list:
        own = config.run(method)
        weights = weights_of(own, meta_model(settings, own), machine.kind, machine.bfloat16_flops is not None)
        parts = owned(weights, devices) if method != "adamw" else parts
        estimates.append(_Method(config, machine, devices, own, model, shape, kept, weights).estimate())
    sharded = config.sharding == "fsdp" and parts != []
    return Plan(
        config,
        machine,
        devices,
        sum(p.numel() for p in model.parameters()),
        kept,
        max(map(len, parts)) if sharded else 0,
        sum(not part for part in parts) if sharded else 0,
        estimates,
    )


@dataclass(frozen=True)
class _Method:
    """Everything that the estimate of one method is made from."""

    config: PlanConfig
    machine: Machine
    devices: int
    run: RunConfig
    model: nn.Module
    shape: Shape
    kept: Activations
    weights: list[Weight]

    @property
    def sharded(self) -> bool:
        return self.config.sharding == "fsdp"

    @property
    def micro_tokens(self) -> int:
        """Tokens of a micro-batch of one device."""
        return self.run.per_device_train_batch_size * self.run.max_length

    @property
    def tokens(self) -> int:
        """Tokens of a step of one device."""
        return self.micro_tokens * self.run.gradient_accumulation_steps

    @property
    def compute_bytes(self) -> int:
        return 2 if self.run.bf16 else 4

    @property
    def frozen(self) -> int:
        return sum(p.numel() for p in self.model.parameters() if not p.requires_grad)

    def estimate(self) -> Estimate:
        parts = owned(self.weights, self.devices)
        # Without shards every device does everything; with them the busiest is the one with most work.
        matrices = [w for w in self.weights if w.pieces]
        mine = max(parts, key=lambda part: sum(w.work for w in part)) if self.sharded else matrices
        out = sent(
            self.weights, parts, self.sharded, self.frozen, self.compute_bytes, self.run.gradient_accumulation_steps
        )
        every = max((w.refresh_every for w in self.weights), default=0)
        passes = self._passes()
        capture = sum(w.capture for w in self.weights) * self.tokens
        mapping = sum(w.refresh for w in mine)
        seconds = self._seconds(passes, mine, capture + mapping, every, out)
        hours = seconds.step * (self.run.steps or 0) / SECONDS_PER_HOUR
        price = self.config.price or self.machine.price_per_device_hour
        return Estimate(
            self.run.method,
            self.weights,
            self._memory(mine, matrices),
            out,
            every,
            passes,
            sum(w.polar + w.mapping for w in mine),
            capture + mapping,
            seconds,
            hours,
            None if price is None else hours * self.devices * price,
        )

    def _passes(self) -> float:
        forward, backward = forward_operations(self.model, self.shape, self.tokens, self.run.max_length)
        return forward + backward + (forward if self.run.gradient_checkpointing else 0.0)

    def _peak(self, precision: torch.dtype) -> float:
        """Operations per second of a device at its best."""
        fast = self.machine.bfloat16_flops if precision == torch.bfloat16 else None
        return fast or self.machine.float32_flops

    def _seconds(self, passes: float, mine: Sequence[Weight], refresh: float, every: int, out: Sent) -> Seconds:
        link, part = self.machine.link(self.devices), self.config.update_utilisation
        exact = part * self._peak(torch.float32)
        update = sum(w.polar / (part * self._peak(w.polar_precision)) + w.mapping / exact for w in mine)
        update += self._traffic(mine) / self.machine.memory_bandwidth
        return Seconds(
            passes / (self.config.utilisation * self._peak(torch.bfloat16 if self.run.bf16 else torch.float32)),
            (out.gradients + out.weights) / link,
            update,
            out.matrices / link,
            (refresh / exact + out.contexts / link) / every if every else 0.0,
        )

    def _traffic(self, mine: Sequence[Weight]) -> float:
        others = [w for w in self.weights if not w.pieces]
        shards = [w.traffic * (w.shard(self.devices) if self.sharded else 1.0) for w in others]
        return sum(w.traffic for w in mine) + sum(shards)

    def _memory(self, mine: Sequence[Weight], matrices: Sequence[Weight]) -> Memory:
        size = float(sum(w.bytes for w in self.weights))
        contexts = float(sum(w.contexts for w in self.weights))
        kept = self.kept.checkpointed if self.run.gradient_checkpointing else self.kept.whole
        logits = 4.0 * self.micro_tokens * self.shape.vocabulary
        temporaries = max(update_temporaries(mine), self._adamw_temporaries())
        weights = gradients = size
        state = float(sum(w.state for w in self.weights))
        if self.sharded:
            gradients = sum(w.bytes * w.shard(self.devices) for w in self.weights)
            weights, state = gradients, sharded_state(self.weights, mine, self.devices)
            # A shard of every matrix is sent, each owned one arrives in pieces, is joined, and its direction goes back.
            temporaries += sum(w.bytes * w.shard(self.devices) for w in matrices) + 3.0 * sum(w.bytes for w in mine)
        return Memory(
            weights + 4.0 * self.frozen / (self.devices if self.sharded else 1),
            gradients,
            state,
            self._gathered() if self.sharded else self._copies(size),
            kept + logits,
            contexts,
            refresh_temporaries(mine),
            temporaries,
            self.run.gradient_accumulation_steps > 1,
        )

    def _adamw_temporaries(self) -> float:
        others = [w for w in self.weights if not w.pieces]
        sizes = [w.bytes * (w.shard(self.devices) if self.sharded else 1.0) for w in others]
        return adamw_temporaries(sizes, self.machine.kind)

    def _copies(self, gradients: float) -> float:
        """Bytes of DDP's buckets, and of the weights that autocast holds in bfloat16."""
        casts = 2.0 * sum(p.numel() for p in self.model.parameters() if p.ndim > 1) if self.run.bf16 else 0.0
        return casts + (gradients if self.devices > 1 else 0.0)

    def _gathered(self) -> float:
        """Bytes of the whole weights that FSDP holds at a time: two blocks, and what belongs to none."""
        blocks: dict[str, int] = defaultdict(int)
        for name, parameter in self.model.named_parameters():
            numbered = [place for place, part in enumerate(name.split(".")) if part.isdigit()]
            blocks[".".join(name.split(".")[: numbered[0] + 1]) if numbered else ""] += parameter.numel()
        outside = blocks.pop("", 0)
        return self.compute_bytes * float(outside + sum(sorted(blocks.values())[-2:]))

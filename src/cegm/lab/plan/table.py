"""A plan as text: one column per method, aligned, with units, and underneath what was assumed."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from cegm.columns import aligned
from cegm.lab.plan.estimate import Estimate, Plan

WIDTH = 120

Row = tuple[str, str, Callable[[Estimate], float | None]]

BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
SECONDS = ((3600.0, "h"), (1.0, "s"), (1e-3, "ms"))
OPERATIONS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


def table(plan: Plan) -> str:
    """What `cegm plan` prints."""
    methods = [estimate.method for estimate in plan.estimates]
    rows: list[list[str]] = [["", "", *methods]]
    for title, units, section in _sections(plan):
        most = max(value for _, _, of in section for e in plan.estimates if (value := of(e)) is not None)
        if not most:  # one device sends nothing
            continue
        scale, unit = _unit(most, units)
        rows.append([title, unit, *[""] * len(methods)])
        rows += [
            [f"  {name}", note, *[_number(of(e), scale, most) for e in plan.estimates]] for name, note, of in section
        ]
    rows.append(["run", "", *[""] * len(methods)])
    longest, dearest = (max(e.hours for e in plan.estimates), max(e.money or 0.0 for e in plan.estimates))
    rows.append(["  time", "hours", *[_number(e.hours, 1.0, longest) for e in plan.estimates]])
    rows.append(["  money", "at your price", *[_number(e.money, 1.0, dearest) for e in plan.estimates]])
    rows.append(["  time over the first method's", "ratio", *[f"{_ratio(plan, e):.3f}" for e in plan.estimates]])
    lines = aligned(rows, {0, 1})
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*_head(plan), "", *lines, "", "assumed:", *_assumptions(plan)])


def _sections(plan: Plan) -> list[tuple[str, Sequence[tuple[float, str]], list[Row]]]:
    fsdp = plan.config.sharding == "fsdp"
    memory: list[Row] = [
        ("weights", "shard" if fsdp else "", lambda e: e.memory.weights),
        ("gradients", "shard" if fsdp else "", lambda e: e.memory.gradients),
        ("optimizer state", "exact", lambda e: e.memory.state),
        ("gathered weights" if fsdp else "copies: buckets, casts", "", lambda e: e.memory.gathered),
        (
            "activations and logits",
            "checkpointed" if plan.run.gradient_checkpointing else "",
            lambda e: e.memory.activations,
        ),
        ("contexts recorded", "on a refresh", lambda e: e.memory.contexts),
        ("temporaries of the maps", "on a refresh", lambda e: e.memory.mapping),
        ("temporaries of the update", "", lambda e: e.memory.temporaries),
        ("peak", f"of {_size(plan.machine.memory)}", lambda e: e.memory.peak),
    ]
    time: list[Row] = [
        ("forward and backward", "", lambda e: e.seconds.passes),
        ("gradients and weights sent", "beside it", lambda e: e.seconds.exchange),
        ("update", "", lambda e: e.seconds.update),
        ("to and from owners", "", lambda e: e.seconds.owners),
        ("contexts", "mean", lambda e: e.seconds.refresh),
        ("step", "mean", lambda e: e.seconds.step),
    ]
    work: list[Row] = [
        ("forward and backward", "", lambda e: e.passes_operations),
        ("update", "", lambda e: e.update_operations),
        ("a refresh", "", lambda e: e.refresh_operations),
    ]
    traffic: list[Row] = [
        ("gradients", "", lambda e: e.sent.gradients),
        ("weights", "", lambda e: e.sent.weights),
        ("matrices to and from owners", "", lambda e: e.sent.matrices),
        ("contexts", "on a refresh", lambda e: e.sent.contexts),
    ]
    return [
        ("memory per device", BYTES, memory),
        ("products per device and step", OPERATIONS, work),
        ("time per step", SECONDS, time),
        ("sent per device and step", BYTES, traffic),
    ]


def _head(plan: Plan) -> list[str]:
    run, machine = plan.run, plan.machine
    tokens = run.per_device_train_batch_size * run.max_length * run.gradient_accumulation_steps * plan.devices
    devices = f"{_many(plan.devices, 'device')} of {machine.name} ({machine.devices} a node)"
    fits = [e.method for e in plan.estimates if e.memory.peak > machine.memory]
    verdict = f"does NOT fit: {', '.join(fits)}" if fits else "every method fits"
    return [
        f"model    {run.model_name_or_path}, {plan.parameters:,} weights",
        f"where    {devices}, {plan.config.sharding.upper()}",
        f"batch    {_many(run.per_device_train_batch_size, 'row')} x {run.max_length:,} tokens x "
        f"{_many(run.gradient_accumulation_steps, 'micro-batch')} x {_many(plan.devices, 'device')} = {tokens:,} tokens a step, "
        f"{run.steps or 0:,} steps",
        f"keeps    {_size(plan.activations.whole)} of activations per micro-batch, {_size(plan.activations.checkpointed)} with checkpointing",
        f"memory   {verdict} in {_size(machine.memory)} a device",
    ]


def _assumptions(plan: Plan) -> list[str]:
    config, run, machine = plan.config, plan.run, plan.machine
    said = [
        f"The peak is {_rate(machine.bfloat16_flops)} in bfloat16 and {_rate(machine.float32_flops)} in float32. The passes, in "
        f"{'bfloat16' if run.bf16 else 'float32'}, reach {config.utilisation:.0%} of it, with all they do beside products; products of updates "
        f"and contexts, counted apart from their bytes through memory, {config.update_utilisation:.0%}.",
        "Weights, gradients and state are float32. State is exact, from the optimizer's own groups and options; activations come "
        "from tracing a forward pass with torch's fused attention; temporaries count the largest batch of equal shapes.",
        "Activations are freed while gradients come, and contexts before the update: the peak has all of one of these, not of two.",
        "An update is its products plus its bytes through memory, beside nothing else; a refresh is spread over the steps between two. "
        "Starting an operation costs nothing here: a model too small for its device is slower than this.",
    ]
    if plan.devices > 1:
        link = "inside the node" if plan.devices <= machine.devices else "between nodes"
        said.append(
            f"Collectives are rings over the slowest link, {_size(machine.link(plan.devices))}/s {link}; gradients and weights travel "
            "beside the passes, what owners and contexts need comes after them."
        )
    if config.sharding == "fsdp":
        said.append(
            "FSDP gathers each block for the forward and again for the backward pass, two at a time, and keeps the rest gathered."
        )
        if plan.fullest_owner:
            said.append(
                f"A matrix of Algorithm 1 is owned whole by one device: at most {plan.fullest_owner} by one, none by "
                f"{plan.idle} of {plan.devices}. Its gradient is gathered there, its direction sent back "
                "in shards. Contexts are recorded whole on every device."
            )
    elif plan.devices > 1:
        said.append("Under DDP every device holds all weights and state and makes the whole update.")
    if run.beta:
        said.append("The entanglement loss is not counted.")
    if all(e.money is None for e in plan.estimates):
        said.append("Nobody said a price: --price 2.50, or price_per_device_hour in a file of machines.")
    return [line for text in said for line in textwrap.wrap(text, WIDTH, initial_indent="- ", subsequent_indent="  ")]


def _ratio(plan: Plan, estimate: Estimate) -> float:
    return estimate.seconds.step / plan.estimates[0].seconds.step


def _many(count: int, name: str) -> str:
    ending = "" if count == 1 else "es" if name.endswith("ch") else "s"
    return f"{count:,} {name}{ending}"


def _unit(most: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit in which a value is at least 1."""
    return next((entry for entry in units if most >= entry[0]), units[-1])


def _number(value: float | None, scale: float, most: float) -> str:
    """In the unit of its section, with as many decimals as the largest of them needs for four digits."""
    if value is None:
        return "-"
    decimals = next((places for limit, places in ((10, 3), (100, 2), (1000, 1)) if most / scale < limit), 0)
    return f"{value / scale:,.{decimals}f}" if value else "0"


def _size(value: float) -> str:
    scale, unit = _unit(value, BYTES)
    return f"{value / scale:.3g} {unit}"


def _rate(value: float | None) -> str:
    if value is None:
        return "none"
    scale, unit = _unit(value, OPERATIONS)
    return f"{value / scale:.4g} {unit}/s"

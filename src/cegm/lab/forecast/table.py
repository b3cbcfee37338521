"""A forecast as text: one column per method, aligned, with units, and underneath what was assumed.

What is nothing is left out, so one run on one device is told without networks and money.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cegm.columns import aligned
from cegm.lab.baselines import METHODS
from cegm.lab.forecast.forecast import SECONDS_PER_HOUR, Estimate, Forecast
from cegm.lab.forecast.machine import HERE

WIDTH = 120

BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
SECONDS = ((3600.0, "h"), (1.0, "s"), (1e-3, "ms"))
OPERATIONS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


class Row(NamedTuple):
    """A line of the table: what it is, a remark, and the number of a method; None where it is not known."""

    name: str
    remark: str
    of: Callable[[Estimate], float | None]


def table(found: Forecast) -> str:
    """What `cegm plan` prints, and `cegm train --dry_run` below its data."""
    methods = [estimate.run.method for estimate in found.estimates]
    rows: list[list[str]] = [["", "", *methods]]
    for title, units, section in _sections(found):
        known = [(row, [row.of(e) for e in found.estimates]) for row in section]
        told = [(row, values) for row, values in known if any(values)]
        most = max((value or 0.0 for _, values in told for value in values), default=0.0)
        scale, unit = _unit(most, units)
        rows += [[title, unit, *[""] * len(methods)]] if told else []
        rows += [[f"  {row.name}", row.remark, *[_number(v, scale, most) for v in values]] for row, values in told]
    money, first = [e.money for e in found.estimates], found.estimates[0].seconds.step
    if any(money):
        dearest = max(each or 0.0 for each in money)
        rows.append(["  money", "at your price", *[_number(each, 1.0, dearest) for each in money]])
    if len(methods) > 1:
        ratios = [f"{e.seconds.step / first:.3f}" for e in found.estimates]
        rows.append(["  time over the first method's", "ratio", *ratios])
    lines = aligned(rows, {0, 1})
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*_head(found), "", *lines, "", "assumed:", *_assumptions(found)])


def _sections(found: Forecast) -> list[tuple[str, Sequence[tuple[float, str]], list[Row]]]:
    fsdp, first = found.config.sharding == "fsdp", found.estimates[0]
    shard = "shard" if fsdp else ""
    checkpointed = "checkpointed" if first.run.gradient_checkpointing else ""
    memory = [
        Row("weights", shard, lambda e: e.memory.weights),
        Row("gradients", shard, lambda e: e.memory.gradients),
        Row("optimizer state", "exact", lambda e: e.memory.state),
        Row("gathered weights" if fsdp else "copies: buckets, casts", "", lambda e: e.memory.gathered),
        Row("activations and logits", checkpointed, lambda e: e.memory.activations),
        Row("contexts recorded", "on a refresh", lambda e: e.memory.contexts),
        Row("temporaries of the maps", "on a refresh", lambda e: e.memory.mapping),
        Row("temporaries of the update", "", lambda e: e.memory.temporaries),
        Row("peak", f"of {_size(found.machine.memory)}", lambda e: e.memory.peak),
    ]
    work = [
        Row("forward and backward", "", lambda e: e.passes_operations),
        Row("update", "", lambda e: e.update_operations),
        Row("a refresh", "", lambda e: e.refresh_operations),
    ]
    time = [
        Row("forward and backward", "", lambda e: e.seconds.passes),
        Row("gradients and weights sent", "beside it", lambda e: e.seconds.exchange),
        Row("update", "", lambda e: e.seconds.update),
        Row("to and from owners", "", lambda e: e.seconds.owners),
        Row("contexts", "mean", lambda e: e.seconds.refresh),
        Row("step", "mean", lambda e: e.seconds.step),
    ]
    traffic = [
        Row("gradients", "", lambda e: e.sent.gradients),
        Row("weights", "", lambda e: e.sent.weights),
        Row("matrices to and from owners", "", lambda e: e.sent.matrices),
        Row("contexts", "on a refresh", lambda e: e.sent.contexts),
    ]
    return [
        ("memory per device", BYTES, memory),
        ("products per device and step", OPERATIONS, work),
        ("time per step", SECONDS, time),
        ("sent per device and step", BYTES, traffic),
        ("run", SECONDS, [Row("time", "", lambda e: SECONDS_PER_HOUR * e.hours)]),
    ]


def _head(found: Forecast) -> list[str]:
    run, machine, passes = found.estimates[0].run, found.machine, found.passes
    tokens = run.per_device_train_batch_size * run.max_length * run.gradient_accumulation_steps * found.devices
    over = [e.run.method for e in found.estimates if e.memory.peak > machine.memory]
    verdict = f"does NOT fit: {', '.join(over)}" if over else "every method fits"
    return [
        f"model    {run.model_name_or_path}, {found.parameters:,} weights",
        f"where    {_many(found.devices, 'device')} of {machine.name} ({machine.devices} a node), {found.config.sharding.upper()}",
        f"batch    {_many(run.per_device_train_batch_size, 'row')} x {run.max_length:,} tokens x "
        f"{_many(run.gradient_accumulation_steps, 'micro-batch')} x {_many(found.devices, 'device')} = {tokens:,} tokens a step, "
        f"{run.steps or 0:,} steps",
        f"keeps    {_size(passes.kept)} of activations per micro-batch, {_size(passes.checkpointed)} with checkpointing",
        f"memory   {verdict} in {_size(machine.memory)} a device",
    ]


def _assumptions(found: Forecast) -> list[str]:
    config, run, machine = found.config, found.estimates[0].run, found.machine
    fast = "none" if machine.bfloat16_flops is None else f"{_scaled(machine.bfloat16_flops, OPERATIONS, '.4g')}/s"
    said = [
        f"The peak is {fast} in bfloat16 and {_scaled(machine.float32_flops, OPERATIONS, '.4g')}/s in float32"
        f"{', timed here and now' if machine.name == HERE else ''}. The passes, in "
        f"{'bfloat16' if run.bf16 else 'float32'}, reach {config.utilisation:.0%} of it, with all they do beside products; products of updates "
        f"and contexts, counted apart from their bytes through memory, {config.update_utilisation:.0%}.",
        "Products are those that torch counts in the passes and in the optimizer's own functions, of masked attention half.",
        "Weights, gradients and state are float32. State is exact, from the optimizer's own groups and options; activations come "
        "from tracing a forward pass with torch's fused attention; temporaries count the largest batch of equal shapes.",
        "Activations are freed while gradients come, and contexts before the update: the peak has all of one of these, not of two.",
        "An update is its products plus its bytes through memory, beside nothing else; a refresh is spread over the steps between two. "
        "Starting an operation costs nothing here: a model too small for its device is slower than this.",
    ]
    if found.devices > 1:
        link = "inside the node" if found.devices <= machine.devices else "between nodes"
        said.append(
            f"Collectives are rings over the slowest link, {_size(machine.link(found.devices))}/s {link}; gradients and weights travel "
            "beside the passes, what owners and contexts need comes after them."
        )
    if config.sharding == "fsdp":
        said.append(
            "FSDP gathers each block for the forward and again for the backward pass, two at a time, and keeps the rest gathered."
        )
        if found.fullest_owner:
            said.append(
                f"A matrix of Algorithm 1 is owned whole by one device: at most {found.fullest_owner} by one, none by "
                f"{found.idle} of {found.devices}. Its gradient is gathered there, its direction sent back "
                "in shards. Contexts are recorded whole on every device."
            )
    elif found.devices > 1:
        said.append("Under DDP every device holds all weights and state and makes the whole update.")
    if run.beta:
        said.append("The entanglement loss is not counted.")
    if not all(METHODS[e.run.method].planned for e in found.estimates):
        said.append("What a method does only now and then, such as new preconditioners, is not counted.")
    if machine.name != HERE and all(e.money is None for e in found.estimates):
        said.append("Nobody said a price: --price 2.50, or price_per_device_hour in a file of machines.")
    return [line for text in said for line in textwrap.wrap(text, WIDTH, initial_indent="- ", subsequent_indent="  ")]


def _many(count: int, name: str) -> str:
    ending = "" if count == 1 else "es" if name.endswith("ch") else "s"
    return f"{count:,} {name}{ending}"


def _number(value: float | None, scale: float, most: float) -> str:
    """In the unit of its section, with as many decimals as the largest of them needs for four digits."""
    if value is None:
        return "-"
    decimals = next((places for limit, places in ((10, 3), (100, 2), (1000, 1)) if most / scale < limit), 0)
    return f"{value / scale:,.{decimals}f}" if value else "0"


def _unit(most: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit in which a value is at least 1."""
    return next((entry for entry in units if most >= entry[0]), units[-1])


def _scaled(value: float, units: Sequence[tuple[float, str]], form: str) -> str:
    scale, unit = _unit(value, units)
    return f"{value / scale:{form}} {unit}"


def _size(value: float) -> str:
    return _scaled(value, BYTES, ".3g")

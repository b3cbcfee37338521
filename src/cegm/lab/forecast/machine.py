"""What there is to run on: a machine from a YAML file, the package's own or the user's, or the one that runs this."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from cegm.lab.declarations import read_yaml
from cegm.mapping.normalize import multiplies_bfloat16
from cegm.spelling import nearest

HERE = "here"
KINDS = ("cpu", "cuda")
OPTIONAL = ("bfloat16_flops", "node_bandwidth", "network_bandwidth", "price_per_device_hour")
"""May be null: no fast bfloat16, a single device, a single node, a price that nobody told."""

SIDE = {"cpu": 1024, "cuda": 8192}
"""Of the matrices whose product and copy are timed; large enough for the peak, small enough to wait for."""

REPEATS = 5


@dataclass(frozen=True)
class Machine:
    """Equal nodes of equal devices.

    Attributes:
        name: Key in the file.
        kind: `cpu` or `cuda`; decides how powers of contexts are computed.
        devices: Of a node.
        memory: Bytes of a device.
        float32_flops: Peak operations per second of a device in float32 products, without shortened ones (TF32).
        bfloat16_flops: The same in bfloat16; None: they are emulated, so float32 is used.
        memory_bandwidth: Bytes per second between a device and its memory.
        node_bandwidth: Bytes per second that a device sends to others of its node; None: it has none.
        network_bandwidth: Bytes per second that a device sends to other nodes; None: there are none.
        price_per_device_hour: In any currency; None: not known.
    """

    name: str
    kind: str
    devices: int
    memory: float
    float32_flops: float
    bfloat16_flops: float | None
    memory_bandwidth: float
    node_bandwidth: float | None = None
    network_bandwidth: float | None = None
    price_per_device_hour: float | None = None

    def peak(self, precision: torch.dtype) -> float:
        """Operations per second of a device at its best."""
        return (self.bfloat16_flops if precision == torch.bfloat16 else None) or self.float32_flops

    def link(self, devices: int) -> float:
        """Bytes per second that each of so many devices sends, at the slowest link of a ring through all of them.

        Raises:
            ValueError: The machine has no such link.
        """
        if devices == 1:
            return math.inf
        name = "node_bandwidth" if devices <= self.devices else "network_bandwidth"
        found: float | None = getattr(self, name)
        if found is None:
            raise ValueError(
                f"devices={devices}: machine {self.name!r} has {self.devices} a node and no {name}; give it one, or fewer devices"
            )
        return found


def here() -> Machine:
    """One device of the machine that runs this; its products and copies are timed, which takes about a second."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.ones(SIDE[kind], SIDE[kind], device=kind)
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    memory = torch.cuda.get_device_properties(0).total_memory if kind == "cuda" else physical
    short, copy = matrix.bfloat16(), torch.empty_like(matrix)
    product, size = 2.0 * SIDE[kind] ** 3, 2.0 * matrix.numel() * matrix.element_size()
    return Machine(
        HERE,
        kind,
        1,
        float(memory),
        product / _seconds(lambda: matrix @ matrix),
        product / _seconds(lambda: short @ short) if kind == "cuda" or multiplies_bfloat16() else None,
        size / _seconds(lambda: copy.copy_(matrix)),
    )


def _seconds(work: Callable[[], Any]) -> float:
    """The shortest of some times, which other programs disturb least; the first time also makes ready."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def read_machine(path: str, name: str) -> Machine:
    """One machine of a file.

    Args:
        path: YAML file, `name: {field: number, ...}`; empty for the one that comes with the package.
        name: Which machine; `here` without a file is the one that runs this.

    Raises:
        ValueError: Missing or broken file, no such machine, or one without a field or with a value that cannot be.
    """
    if not path and name == HERE:
        return here()
    shown = path or "machines.yaml"
    found = read_yaml(path or str(Path(str(resources.files("cegm.lab.forecast").joinpath("machines.yaml")))))
    if name not in found:
        raise ValueError(f"machine {name!r} is not in {shown}; {nearest(name, found if path else [*found, HERE])}")
    entry = found[name]
    if not isinstance(entry, Mapping):
        raise ValueError(f"{shown}: machine {name!r} must hold names and values, such as 'devices: 8'")
    said = f"{shown}: machine {name!r} has"
    fields = [field.name for field in dataclasses.fields(Machine) if field.name != "name"]
    for field in fields:
        if field not in entry:
            raise ValueError(f"{said} no {field}; add it")
    for field in entry:
        if field not in fields:
            raise ValueError(f"{said} an unknown field {field!r}; {nearest(field, fields)}")
    if entry["kind"] not in KINDS:
        raise ValueError(f"{said} kind {entry['kind']!r}; use one of {', '.join(KINDS)}")
    numbers: dict[str, Any] = {field: _number(said, field, entry[field]) for field in fields if field != "kind"}
    if numbers["devices"] != int(numbers["devices"]):
        raise ValueError(f"{said} devices={numbers['devices']:g}; give a whole number")
    return Machine(name=name, kind=str(entry["kind"]), **{**numbers, "devices": int(numbers["devices"])})


def _number(said: str, field: str, value: Any) -> float | None:
    """A positive number; YAML reads `80e9` as text."""
    if value is None and field in OPTIONAL:
        return None
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not (0 < number < math.inf) and not (number == 0 and field == "price_per_device_hour"):
        raise ValueError(f"{said} {field}={value!r}; give a number above 0")
    return number

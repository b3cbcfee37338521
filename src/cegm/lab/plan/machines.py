"""What there is to run on: machines from a YAML file, the package's own or the user's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cegm.lab.declarations import read_yaml
from cegm.spelling import nearest

KINDS = ("cpu", "cuda")
OPTIONAL = ("bfloat16_flops", "node_bandwidth", "network_bandwidth", "price_per_device_hour")
"""May be null: no fast bfloat16, a single device, a single node, a price that nobody told."""


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
    node_bandwidth: float | None
    network_bandwidth: float | None
    price_per_device_hour: float | None

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


def read_machine(path: str, name: str) -> Machine:
    """One machine of a file.

    Args:
        path: YAML file, `name: {field: number, ...}`; empty for the one that comes with the package.
        name: Which machine.

    Raises:
        ValueError: Missing or broken file, no such machine, or one without a field or with a value that cannot be.
    """
    shown = path or "machines.yaml"
    found = read_yaml(path or str(Path(str(resources.files("cegm.lab.plan").joinpath("machines.yaml")))))
    if name not in found:
        raise ValueError(f"machine {name!r} is not in {shown}; {nearest(name, found)}")
    entry = found[name]
    if not isinstance(entry, Mapping):
        raise ValueError(f"{shown}: machine {name!r} must hold names and values, such as 'devices: 8'")
    return _checked(shown, name, entry)


def _checked(shown: str, name: str, entry: Mapping[str, Any]) -> Machine:
    fields = [field.name for field in dataclasses.fields(Machine) if field.name != "name"]
    for field in fields:
        if field not in entry:
            raise ValueError(f"{shown}: machine {name!r} has no {field}; add it")
    for field in entry:
        if field not in fields:
            raise ValueError(f"{shown}: machine {name!r} has an unknown field {field!r}; {nearest(field, fields)}")
    if entry["kind"] not in KINDS:
        raise ValueError(f"{shown}: machine {name!r} has kind {entry['kind']!r}; use one of {', '.join(KINDS)}")
    numbers = {field: _number(shown, name, field, entry[field]) for field in fields if field != "kind"}
    devices = numbers.pop("devices")
    assert devices is not None
    if devices != int(devices):
        raise ValueError(f"{shown}: machine {name!r} has devices={devices:g}; give a whole number")
    return Machine(name=name, kind=str(entry["kind"]), devices=int(devices), **numbers)  # type: ignore[arg-type]


def _number(shown: str, name: str, field: str, value: Any) -> float | None:
    """A positive number; YAML reads `80e9` as text."""
    if value is None and field in OPTIONAL:
        return None
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not (0 < number < math.inf) and not (number == 0 and field == "price_per_device_hour"):
        raise ValueError(f"{shown}: machine {name!r} has {field}={value!r}; give a number above 0")
    return number

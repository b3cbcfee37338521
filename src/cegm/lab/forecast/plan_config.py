"""`PlanConfig`: which methods are planned for which machine; everything else is a run's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from cegm.lab.baselines import METHODS, require_method
from cegm.lab.compare.compare_config import listed
from cegm.lab.declarations import Declared, option
from cegm.lab.forecast.machine import Machine, read_machine
from cegm.lab.train.run_config import RunConfig, Sharding, from_mapping

PLANNED = tuple(name for name, method in METHODS.items() if method.planned)

ASKED = (
    "model_name_or_path", "data", "max_length", "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "bf16",
    "gradient_checkpointing", "lora_r", "lora_target_modules", "trust_remote_code",
)  # fmt: skip
"""Options of a run that change its plan; a file may hold the others too."""


@dataclass
class PlanConfig(Declared):
    """One plan. Every field is a flag of `cegm plan`; those of `cegm train` in `ASKED` say what is planned.

    Raises:
        ValueError: In one line, for anything that cannot be planned.
    """

    SHARED: ClassVar = ASKED

    methods: str = option("adamw,muon,cegm", f"methods, comma-separated: {', '.join(PLANNED)}")
    machine: str = option("h100-node", "name of a machine; here is the one that runs this")
    machines: str = option("", "YAML file of machines (default: the one that comes with the package)")
    devices: int = option(0, "devices that share a batch (data-parallel); 0 takes those of one node", low=0)
    sharding: Sharding = option("ddp", "whether every device holds all weights (ddp), or they are spread over all")
    utilisation: float = option(
        0.4,
        "part of the peak that the passes reach, with all they do beside products, in (0, 1]",
        low=0,
        high=1,
        above=True,
        hint="0.4 is usual for large models",
    )
    update_utilisation: float = option(
        0.8,
        "part of the peak that the products of updates and contexts reach, in (0, 1]",
        low=0,
        high=1,
        above=True,
        hint="0.8 is usual for large models",
    )
    price: float = option(0.0, "price of a device-hour, in any currency; 0 takes the machine's", low=0)
    shared: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for method in self.method_list:
            if not require_method(method).planned:
                raise ValueError(f"method {method!r} cannot be planned, only run; use one of {', '.join(PLANNED)}")
        for method in self.own:
            if method not in self.method_list:
                raise ValueError(f"--{method}.… sets an option of a method that is not planned; add it to --methods")
        for method in self.method_list:
            if self.run(method).steps is None:
                raise ValueError("num_train_epochs says nothing without the data; give max_steps")

    @property
    def method_list(self) -> list[str]:
        """Methods in the order given, each once."""
        found = listed(self.methods)
        if not found:
            raise ValueError(f"methods={self.methods!r} names none; use one of {', '.join(PLANNED)}")
        return found

    def run(self, method: str) -> RunConfig:
        """The configuration of a run of one method."""
        return from_mapping({**self.shared, **self.own.get(method, {}), "method": method}, "cegm plan")

    def read_machine(self) -> Machine:
        """The machine; see `cegm.lab.forecast.machine`."""
        return read_machine(self.machines, self.machine)

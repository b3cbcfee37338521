"""What `cegm tune` searches: declared ranges per method, and how a point in them becomes the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cegm.lab.baselines import METHODS, REFERENCE, require_method
from cegm.lab.baselines.space import KNOBS, Point, Range, Space
from cegm.lab.compare.compare_config import CompareConfig, ManyRuns, begins_at_random, listed, read_declared
from cegm.lab.compare.plan import PlannedRun, plan_arms
from cegm.lab.declarations import option

SECOND_BETA = 0.95

SEARCHED = ("learning_rate", *sorted({option for m in METHODS.values() for option in (m.decay, m.momentum)}))
"""Options of a run that the search sets itself."""


def settings(method: str, point: Point) -> dict[str, Any]:
    """Options of a run at a point of the space, in the method's own words."""
    rate, decay, newest = (float(f"{point[name]:.3g}") for name in KNOBS)
    kept = round(1.0 - newest, 6)
    own = METHODS[method].momentum
    momentum = {"betas": [kept, SECOND_BETA], "momentum": kept, "entanglement": newest}[own]
    return {"learning_rate": rate, METHODS[method].decay: decay, own: momentum}


@dataclass
class TuneConfig(ManyRuns):
    """One search. Every field is a flag of `cegm tune`; the flags of `cegm train` say what all its trials share.

    Raises:
        ValueError: In one line, for anything that could not run.
    """

    output_dir: str = option("runs/tune", "search folder; trials that it already holds are not repeated")
    methods: str = option("adamw,muon,cegm", "methods, comma-separated")
    trials: int = option(9, "trials of each method", low=1)
    seeds: str = option(
        "1000", "seeds that each trial is run on, comma-separated; a comparison refuses them afterwards"
    )
    extensions: int = option(2, "how often a range may grow because the best trial lies at its edge", low=0)
    space: str = option("", "YAML file with the ranges (default: those that come with the package)")
    storage: str = option("", "URL of Optuna's database, used by one search at a time (default: SQLite in its folder)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in SEARCHED:
            if name in self.shared:
                raise ValueError(f"{name!r} is what the search sets; give its range in a file with --space")
        declared = read_spaces(self.space, listed(self.methods))
        if not self.space and not begins_at_random(self.shared):
            kind = "adapters" if str(self.shared.get("lora_r", 0)) != "0" else "trained"
            rates = {method: getattr(METHODS[method].rates, kind) for method in declared}
            aux_lr = METHODS[REFERENCE].rates.trained
            declared = {method: space.around(rates[method], aux_lr) for method, space in declared.items()}
        self.spaces = {method: space.under(self.shared) for method, space in declared.items()}
        self.runs = CompareConfig(
            output_dir=self.output_dir,
            methods=self.methods,
            seeds=f"{self.seeds},",  # a list, also of one
            processes=self.processes,
            launcher=self.launcher,
            axes="none",
            shared=self.shared,
            settings={method: space.fixed for method, space in self.spaces.items()},
        )
        for method, space in self.spaces.items():
            self.runs.run(method, self.runs.seed_list[0], **settings(method, space.start))

    def planned(self, method: str, point: Point) -> list[PlannedRun]:
        """The runs of one trial, one per seed."""
        return plan_arms(self.runs, {"axes": []}, arms=[method], changes=settings(method, point))


def read_spaces(path: str, methods: list[str]) -> dict[str, Space]:
    """The space of each method that a YAML file declares, or the methods' own; ValueError where it is missing, broken or lacks a method."""
    known = {method: require_method(method).space for method in methods}
    if not path:
        return known
    declared = read_declared(path)
    return {
        method: _space(path, method, declared.get(method) if isinstance(declared, Mapping) else None)
        for method in methods
    }


class _Declared(msgspec.Struct):
    """Of one method: the range of each of `KNOBS`."""

    learning_rate: Range
    weight_decay: Range
    one_minus_momentum: Range
    start: dict[str, float]
    fixed: dict[str, Any] = {}


def _space(path: str, method: str, entry: Any) -> Space:
    try:
        found = msgspec.convert(entry, _Declared, strict=False)
        ranges = {name: getattr(found, name) for name in KNOBS}
        start = {name: found.start[name] for name in KNOBS}
        if all(0 < low <= start[name] <= high and low < high for name, (low, high) in ranges.items()):
            return Space(ranges, start, found.fixed)
    except (KeyError, msgspec.ValidationError):
        pass
    raise ValueError(f"{path} must give {method} a start, and a range [low, high] above 0 for {', '.join(KNOBS)}")

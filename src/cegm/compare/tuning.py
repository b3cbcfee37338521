"""What `cegm tune` searches: declared ranges per method, and how a point in them becomes the settings of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cegm.baselines import METHODS, RATES
from cegm.compare.config import CompareConfig, begins_at_random, listed, read_declared
from cegm.compare.plan import PlannedRun, plan_run
from cegm.spelling import nearest
from cegm.train.config import RunConfig, option

KNOBS = ("learning_rate", "weight_decay", "one_minus_momentum")
SECOND_BETA = 0.95

MOMENTUM = {
    "muon": "momentum",
    "normuon": "entanglement",
    "newton_muon": "entanglement",
    "cegm": "entanglement",
}
"""The option in which a method keeps its momentum; `betas` for all others."""

SEARCHED = ("learning_rate", "weight_decay", "betas", *sorted(set(MOMENTUM.values())))
"""Options of a run that the search sets itself."""

EDGE = 0.1
"""A point lies at an edge when it is closer to it than this part of the range, on the logarithmic scale."""

LEAST_MOMENTUM = 0.9
"""Upper end of `one_minus_momentum`: some methods divide by the momentum."""

WIDER = 2.0
"""The factor by which a range grows at an edge."""

Range = tuple[float, float]
Point = Mapping[str, float]


@dataclass(frozen=True)
class Space:
    """Where one method is searched.

    Attributes:
        ranges: Lowest and highest value of each of `KNOBS`, above 0.
        start: The first trial.
        fixed: Options that all trials share.
    """

    ranges: dict[str, Range]
    start: dict[str, float]
    fixed: dict[str, Any]

    def of_trained(self, method: str, adapters: bool) -> Space:
        """The space with its learning rates about the method's default for trained weights, as they lay about that for fresh ones."""
        rate = RATES[method].adapters if adapters else RATES[method].trained
        low, high = self.ranges["learning_rate"]
        factor = rate / self.start["learning_rate"]
        return replace(
            self,
            ranges={**self.ranges, "learning_rate": (factor * low, factor * high)},
            start={**self.start, "learning_rate": rate},
            fixed={**self.fixed, "aux_lr": RATES["adamw"].trained},
        )

    def under(self, shared: Mapping[str, Any]) -> Space:
        """The space with its fixed options as the user wants them."""
        return replace(self, fixed={name: shared.get(name, value) for name, value in self.fixed.items()})

    def widened(self, best: Point) -> Space:
        """The space with every range doubled at whose edge `best` lies; the same space when it lies at none."""
        ranges = {name: _widened(*self.ranges[name], best[name]) for name in KNOBS}
        low, high = ranges["one_minus_momentum"]
        ranges["one_minus_momentum"] = low, min(high, LEAST_MOMENTUM)
        return replace(self, ranges=ranges)


def _widened(low: float, high: float, value: float) -> Range:
    place = math.log(value / low) / math.log(high / low)
    return (low / WIDER if place < EDGE else low), (high * WIDER if place > 1 - EDGE else high)


def settings(method: str, point: Point) -> dict[str, Any]:
    """Options of a run at a point of the space, in the method's own words."""
    rate, decay, newest = (float(f"{point[name]:.3g}") for name in KNOBS)
    kept = round(1.0 - newest, 6)
    own = MOMENTUM.get(method, "betas")
    momentum = {"betas": [kept, SECOND_BETA], "momentum": kept, "entanglement": newest}[own]
    return {"learning_rate": rate, "weight_decay": decay, own: momentum}


@dataclass
class TuneConfig:
    """One search. Every field is a flag of `cegm tune`; the flags of `cegm train` say what all its trials share.

    Raises:
        ValueError: In one line, for anything that could not run.
    """

    output_dir: str = option("runs/tune", "search folder; trials that it already holds are not repeated")
    methods: str = option("adamw,muon,cegm", "methods, comma-separated")
    trials: int = option(9, "trials of each method")
    seeds: str = option(
        "1000", "seeds that each trial is run on, comma-separated; a comparison refuses them afterwards"
    )
    extensions: int = option(2, "how often a range may grow because the best trial lies at its edge")
    space: str = option("", "YAML file with the ranges (default: those that come with the package)")
    storage: str = option("", "URL of Optuna's database, used by one search at a time (default: SQLite in its folder)")
    processes: int = option(0, "runs at a time; 0 takes one per core")
    launcher: str = option("local", "where runs execute: local or ray, as in cegm compare")
    shared: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.trials < 1 or self.extensions < 0:
            raise ValueError(f"trials={self.trials} must be at least 1 and extensions={self.extensions} at least 0")
        for name in SEARCHED:
            if name in self.shared:
                raise ValueError(f"{name!r} is what the search sets; give its range in a file with --space")
        declared = read_spaces(self.space, listed(self.methods))
        if not self.space and not begins_at_random(self.shared):
            adapters = str(self.shared.get("lora_r", 0)) != "0"
            declared = {method: space.of_trained(method, adapters) for method, space in declared.items()}
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
            self._trial(method, space.start)

    def planned(self, method: str, point: Point) -> list[PlannedRun]:
        """The runs of one trial, one per seed."""
        return [plan_run(run, "main", {"axes": []}) for run in self._trial(method, point)]

    def _trial(self, method: str, point: Point) -> list[RunConfig]:
        return [self.runs.run(method, seed, **settings(method, point)) for seed in self.runs.seed_list]


def read_spaces(path: str, methods: list[str]) -> dict[str, Space]:
    """The declared space of each method.

    Args:
        path: YAML file; empty for the ranges that come with the package.
        methods: Which ones are needed.

    Raises:
        ValueError: Missing or broken file, or a method without ranges, in one line.
    """
    declared = read_declared(path, "spaces.yaml")
    spaces = {}
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"method {method!r} does not exist; {nearest(method, METHODS)}")
        entry = declared.get(method) if isinstance(declared, Mapping) else None
        if not isinstance(entry, Mapping) or not _is_space(entry):
            raise ValueError(
                f"{path or 'the package'} must give {method} a start, and a range [low, high] above 0 for {', '.join(KNOBS)}"
            )
        ranges = {name: (float(entry[name][0]), float(entry[name][1])) for name in KNOBS}
        spaces[method] = Space(
            ranges, {name: float(entry["start"][name]) for name in KNOBS}, dict(entry.get("fixed", {}))
        )
    return spaces


def _is_space(entry: Mapping[str, Any]) -> bool:
    try:
        starts = [float(entry["start"][name]) for name in KNOBS]
        ranges = [tuple(map(float, entry[name])) for name in KNOBS]
        return all(0 < low <= start <= high and low < high for start, (low, high) in zip(starts, ranges, strict=True))
    except (KeyError, TypeError, ValueError):
        return False

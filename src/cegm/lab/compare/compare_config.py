"""`CompareConfig`: which methods meet on which seeds, with which settings, and where the results go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import msgspec

from cegm.lab import strict
from cegm.lab.baselines import BASE, METHODS, REFERENCE, SUBJECT, require_method
from cegm.lab.compare.arms import CONTROLS, Arm, Part, read_rates
from cegm.lab.declarations import Declared, convert, declared, option, split
from cegm.lab.train.run_config import FRESH_MODELS, WORLD, RunConfig, from_mapping

Config = TypeVar("Config", bound=Declared)

HELD_OUT = "held_out"
"""Source of an examination: the text that the runs held out for validation."""

HELD_OUT_AXES = ("retention",)

RATES = "rates"
"""The option of a comparison that a method may have of its own."""

FORGETTING = "forgetting"
"""The axis that is measured beside the model before, whatever the source of the others."""

OWNED_BY_COMPARE = (
    "method", "seed", "output_dir", "threads", "resume_from_checkpoint", "resume_without_optimizer", "dry_run", "progress", "sharding",
)  # fmt: skip
"""Options of a run that the comparison sets itself."""


@dataclass
class ManyRuns(Declared):
    """Options of whatever makes many runs; `shared` holds those of `cegm train` that all of them have."""

    SHARED: ClassVar = tuple(name for name in declared(RunConfig) if name not in OWNED_BY_COMPARE)

    processes: int = option(0, "runs at a time; 0 takes one per core", low=0)
    launcher: Literal["local", "ray"] = option(
        "local", "where runs execute: processes of this machine, or a cluster (docs/clusters.md)"
    )
    shared: dict[str, Any] = field(default_factory=dict)


@dataclass
class CompareConfig(ManyRuns):
    """One comparison. Every field is a flag of `cegm compare`; the flags of `cegm train` say what all its runs share.

    Raises:
        ValueError: In one line, for anything that could not run.
    """

    output_dir: str = option("runs/compare", "comparison folder; runs that it already holds are not repeated")
    methods: str = option("adamw,muon,cegm", "methods, comma-separated")
    seeds: str = option("3", "how many test seeds, or which ones, comma-separated")
    equal_seconds: bool = option(True, "give every method CEGM's training time too, in runs of their own")
    axes: str = option("all", "axes measured after each run, comma-separated; all, or none")
    axes_data: str = option(
        "",
        "folder of public sets for their real forms (default: generated forms for the world, else recall of held-out text)",
    )
    front: bool = option(
        False, "compare what methods forget at equal new loss, over several learning rates of each (docs/retention.md)"
    )
    rates: str = option(
        "5",
        "with front, learning rates of each method: how many, log spaced around its own, or which ones, comma-separated; METHOD.rates for one",
    )
    general: str = option(
        "", "text that should not be forgotten: files or folders, comma-separated (default: novels of axes_data)"
    )
    tuned: str = option(
        "", "file of `cegm tune` with each method's settings (default: those that come with the package)"
    )
    items: int = option(64, "items per level of each axis", low=4)
    overhead: bool = option(
        False, "after the runs, time steps against AdamW's over sizes, batches and lengths; wants a quiet machine"
    )
    overhead_rounds: int = option(4, "rounds of that: 4 time 200 steps per method and shape", low=1)
    drill: bool = option(False, "after the runs, see how each method recovers from one bad step, clipped and not")
    drill_seeds: int = option(3, "seeds of that: the first of the comparison's", low=1)
    parts: tuple[Part, ...] = ()
    settings: Mapping[str, dict[str, Any]] | None = None
    own: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.launcher == "ray" and find_spec("ray") is None:
            raise ValueError("launcher ray needs a package that is not installed: pip install 'cegm[ray]'")
        for method in self.method_list:
            require_method(method)
        for method in self.own:
            if method not in self.method_list:
                raise ValueError(f"--{method}.… sets an option of a method that is not compared; add it to --methods")
        for name in OWNED_BY_COMPARE:
            if name in self.shared:
                raise ValueError(f"{name!r} is set by the comparison itself; see 'cegm compare --help'")
        if self.settings is None:
            self.settings = self._tuned_settings()
        for arm in self.arms:
            self.run(arm, self.seed_list[0])
        if FORGETTING in self.examination["axes"] and begins_at_random(self.shared):
            raise ValueError(
                "runs from random weights have no model before to forget; give one with model_name_or_path"
            )
        if self.front:
            self._check_front()

    def _check_front(self) -> None:
        """Time is not what fronts are about: nobody is given more of it."""
        self.equal_seconds = False
        if REFERENCE not in self.method_list:
            raise ValueError(f"a front is read beside {REFERENCE}'s; add it to --methods")
        counts = {method: len(self.rates_of(method)) for method in self.method_list}
        if len(set(counts.values())) > 1:
            raise ValueError(f"every method gets as many rates, not {counts}; give the same number to each")

    def _tuned_settings(self) -> Mapping[str, dict[str, Any]]:
        """Of every method, and on seeds that are not compared; a method may instead have a learning rate from the user.

        Those of the package were found for models that begin at random; from trained weights every method has its own default.
        """
        if not self.tuned and not begins_at_random(self.shared):
            return {}
        found, seeds = tuned_settings(self.tuned, "world" if self.shared.get("data", WORLD) == WORLD else "text")
        for method in self.method_list:
            if method not in found and "learning_rate" not in {**self.shared, **self.own.get(method, {})}:
                raise ValueError(
                    f"{method} has no tuned settings; run cegm tune and pass its file with --tuned, or give --{method}.learning_rate"
                )
        overlap = sorted(set(seeds) & set(self.seed_list))
        if overlap:
            raise ValueError(f"seed {overlap[0]} was used for tuning in {self.tuned}; compare on other seeds")
        return found

    @property
    def method_list(self) -> list[str]:
        """Methods in the order given, each once."""
        return listed(self.methods)

    @property
    def arms(self) -> dict[str, Arm]:
        """What is compared, by name: every method, or one method and its changes."""
        changed = [Arm(BASE, SUBJECT), *(arm for part in self.parts for arm in part.arms)]
        arms = changed if self.parts else [Arm(method, method) for method in self.method_list]
        return {arm.name: arm for arm in arms}

    @property
    def subject(self) -> str:
        """The arm whose training time others are given."""
        return BASE if self.parts else SUBJECT

    @property
    def given_time(self) -> list[str]:
        """The arms that are trained for the subject's time, too: all others, or of an ablation its controls."""
        controls = [arm.name for part in self.parts if part.name == CONTROLS for arm in part.arms]
        return controls if self.parts else [arm for arm in self.arms if arm != self.subject]

    @property
    def reference(self) -> str:
        """The arm whose step others are timed beside."""
        return BASE if self.parts else REFERENCE

    @property
    def examination(self) -> dict[str, Any]:
        """What is measured after each run: `axes`, their `source` and `items` per level; of forgetting, too, where `general` text lies."""
        none = self.axes.strip() == "none"
        if none and not self.front:
            return {"axes": []}
        on_world = self.shared.get("data", WORLD) == WORLD
        source = self.axes_data or (WORLD if on_world else HELD_OUT)
        wanted = HELD_OUT_AXES if source == HELD_OUT and self.axes.strip() == "all" else tuple(listed(self.axes))
        wanted = tuple(dict.fromkeys([*(() if none else wanted), *([FORGETTING] if self.front else [])]))
        if source == HELD_OUT and not set(wanted) <= {*HELD_OUT_AXES, FORGETTING}:
            raise ValueError(
                f"axes={self.axes!r} cannot be measured on held-out text, only retention and forgetting can; give --axes_data, or data world"
            )
        if source not in (WORLD, HELD_OUT) and not Path(source).is_dir():
            raise ValueError(f"axes_data {source} is no folder; give the one that holds the public sets (docs/axes.md)")
        general = {"general": self._general(source)} if FORGETTING in wanted else {}
        return {"axes": list(wanted), "source": source, "items": self.items, **general}

    def _general(self, source: str) -> dict[str, str]:
        """Where general text lies, by a short name: what the user gave, or the novels that other axes take for home text."""
        given, novels = listed(self.general), Path(source, "general_novels", "corpus")
        if not given:
            return {"novels": str(novels)} if novels.is_dir() else {}
        names = [Path(place).stem for place in given]
        return {place if names.count(name) > 1 else name: place for name, place in zip(names, given, strict=True)}

    def rates_of(self, method: str) -> list[float]:
        """Learning rates of a method's front, rising: around its own, or those that were given; ValueError for what is neither."""
        own = self.own.get(method, {}).get(RATES)
        text = str(convert(RATES, self.rates if own is None else own, declared(CompareConfig)[RATES]))
        return read_rates(
            text, self.run(method, self.seed_list[0]).learning_rate, RATES if own is None else f"{method}.{RATES}"
        )

    def at_rate(self, method: str, rate: float) -> dict[str, Any]:
        """Changes of a run that give it this rate; the default rate outside matrices keeps its ratio to that of matrices."""
        assert self.settings is not None
        run = self.run(method, self.seed_list[0])
        given = {**self.settings.get(method, {}), **self.shared, **self.own.get(method, {})}
        if run.aux_lr is None or "aux_lr" in given:
            return {"learning_rate": rate}
        return {"learning_rate": rate, "aux_lr": float(f"{run.aux_lr * rate / run.learning_rate:.3g}")}

    @property
    def seed_list(self) -> list[int]:
        """Test seeds; a single number without a comma counts them from 0."""
        return seeds_of(self.seeds)

    def run(self, name: str, seed: int, **changes: Any) -> RunConfig:
        """The configuration of one run of an arm.

        Shared settings go over the method's tuned ones, then what the user set for the method, then what the arm changes.
        """
        assert self.settings is not None
        arm = self.arms.get(name, Arm(name, name))
        method = arm.method
        own = {option: value for option, value in self.own.get(method, {}).items() if option != RATES}
        one = {"bf16": False}  # all runs of a comparison are alike, and a trial may fall out either way
        values = {**one, **self.settings.get(method, {}), **self.shared, **own, **arm.changes, **changes}
        return from_mapping({**values, "method": method, "seed": seed, "progress": False, "threads": 1}, "cegm compare")


def begins_at_random(shared: Mapping[str, Any]) -> bool:
    """Whether runs that share these options start from a fresh model."""
    return shared.get("model_name_or_path", RunConfig.model_name_or_path) in FRESH_MODELS


def seeds_of(text: str) -> list[int]:
    """Seeds from a count, or from a list with commas; ValueError for none, a negative one, or one twice."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f"seeds={text!r} must be a count such as 3, or a list such as 0,1,2") from None
    if len(numbers) == 1 and "," not in text:
        numbers = list(range(numbers[0]))
    if not numbers or min(numbers) < 0 or len(set(numbers)) != len(numbers):
        raise ValueError(f"seeds={text!r} must name at least one seed, none negative, none twice")
    return numbers


def listed(text: str) -> list[str]:
    """The comma-separated parts of a text, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def tuned_settings(path: str, kind: str) -> tuple[Mapping[str, dict[str, Any]], list[int]]:
    """Settings that equal tuning budgets found for each method, and the seeds they were found on; ValueError for a broken file.

    Without a path those of the package for text of a `kind`, `world` or `text`, found with `tiny` at the default length of training.
    """
    found = read_declared(path, "tuned.yaml")
    if not path:
        return found[kind], []
    try:
        tuned = msgspec.convert(found, _Tuned)
    except msgspec.ValidationError:
        raise ValueError(f"{path} must hold seeds, and settings by method, as cegm tune writes them") from None
    return tuned.settings, tuned.seeds


class _Tuned(msgspec.Struct):
    seeds: list[int]
    settings: dict[str, dict[str, Any]]


def from_names(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """What plans many runs, from flat names: its own options, those of a run for all, and `METHOD.NAME` where methods differ."""
    mine, shared = split(kind, values)
    if "own" in kind.__dataclass_fields__:
        own: dict[str, dict[str, Any]] = {}
        for name in [name for name in shared if name.partition(".")[0] in METHODS and "." in name]:
            method, _, option_name = name.partition(".")
            own.setdefault(method, {})[option_name] = shared.pop(name)
        mine["own"] = own
    if "runs" in kind.__dataclass_fields__:  # folders, which are words of their own
        mine["runs"] = shared.pop("runs")
    return kind(**mine, **({"shared": shared} if "shared" in kind.__dataclass_fields__ else {}))


def read_declared(path: str, built_in: str = "") -> Any:
    """Content of the user's YAML file, or where none is given of the built-in one; ValueError where it is missing or broken."""
    if path and not Path(path).is_file():
        raise ValueError(f"{path} does not exist")
    file = Path(path) if path else Path(str(resources.files("cegm.lab.compare").joinpath(built_in)))
    return strict.yaml_value(strict.read_text(file), path or built_in)

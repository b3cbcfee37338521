"""The plan of a comparison: one line per run, named by a hash of everything that decides its result.

A plan is idempotent: planning the same comparison again gives the same lines, and a run whose valid result lies in the
folder is not repeated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from cegm.durable import write_whole
from cegm.lab.compare.compare_config import FORGETTING, CompareConfig
from cegm.lab.compare.inputs import Inputs, inputs
from cegm.lab.strict import json_lines
from cegm.lab.train.run_config import SAID, RunConfig

Role = Literal["main", "equal_seconds", "front"]

NOT_PART_OF_THE_RESULT = (
    "output_dir", "progress", "report_to", "dry_run", "resume_from_checkpoint", "resume_without_optimizer", "save_total_limit",
    *SAID, "explain_rows",
)  # fmt: skip
LATER = {
    "beta": (0.0, ("beta", "kernel", "stop_gradient")),
    "on_nonfinite": ("stop", ("on_nonfinite",)),
    "sharding": ("ddp", ("sharding",)),
    "retain": (None, ("retain",)),
    "replay": (0.0, ("replay", "replay_data")),
    "lora_init": ("random", ("lora_init",)),
}
"""Options newer than the first finished runs, which keep their names: what is left out of the hash while one has its default."""
CONCLUSIONS = ("results.parquet", "items.parquet", "verdict.json", "front.json", "report.html")
"""Files of a comparison that follow from its runs, and are written anew when all of them have ended."""

BEFORE = "before.json"
"""File of a comparison with what the model before wrote and scored, which runs are held against."""

EXAMINATION_SEED = 0

SAME_SECONDS = 0.05
"""Methods whose step times differ by less than this share one run for both questions: 5 % is what timing on a busy machine resolves."""


class PlannedRun(Struct, frozen=True):
    """One line of `plan.jsonl`.

    Attributes:
        method: Optimizer.
        seed: Decides initial weights and batches, whatever the method.
        role: `main` (equal steps), `equal_seconds` (as many steps as fit into the training time of the subject), or `front` (equal
            steps at a rate other than that of `main`).
        config: Fields of its `RunConfig`.
        evaluation: What is measured after it.
        inputs: What it reads, by hashes; nothing in plans of before they were kept.
        arm: What it is compared as; in the line only where that is not the method.
    """

    method: str
    seed: int
    role: Role
    config: dict[str, Any]
    evaluation: dict[str, Any]
    inputs: Inputs = {}
    arm: str = ""

    def __post_init__(self) -> None:
        structs.force_setattr(self, "arm", self.arm or self.method)

    @property
    def id(self) -> str:
        """Hash of whatever decides the result, not of where it lies; 12 hexadecimal digits."""
        left_out = set(NOT_PART_OF_THE_RESULT)
        for later, (default, names) in LATER.items():
            if self.config.get(later, default) == default:
                left_out.update(names)
        relevant = {name: value for name, value in self.config.items() if name not in left_out}
        relevant["save_steps"] = 0  # not part of it either, but runs were named with it when that was its only value
        if self.method == "cegm":  # an option that was not given means what the preset says today
            options = _resolved(**relevant["optimizer_options"])
            kept = self.config.get("retain") is not None
            relevant["optimizer_options"] = {n: v for n, v in options.items() if kept or not n.startswith("retain_")}
        relevant |= self.inputs  # hashes in place of paths
        hashed = {"source": "axes_data", "general": "general"}
        evaluation = {name: v for name, v in self.evaluation.items() if hashed.get(name) not in self.inputs}
        text = json.dumps([self.method, self.seed, self.role, relevant, evaluation], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return run_name(self.method, self.seed, self.role, self.id)

    def line(self) -> dict[str, Any]:
        """The line of `plan.jsonl`."""
        line = {"id": self.id, **structs.asdict(self)}
        if self.arm == self.method:
            del line["arm"]
        return line


def run_name(method: str, seed: int, role: str, identity: str) -> str:
    """Name of the folder of a planned run."""
    return f"{method}-seed{seed}{'-equal' if role == 'equal_seconds' else ''}-{identity}"


def _resolved(preset: str = "recommended", **given: Any) -> dict[str, Any]:
    from cegm.options import resolve  # torch is not needed to read a plan

    return resolve(preset, given)


def plan_main(config: CompareConfig) -> list[PlannedRun]:
    """All arms on all seeds with equal steps; of fronts, each at its middle rate."""
    if not config.front:
        return plan_arms(config, config.examination)
    return _at_rates(config, config.examination, "main", lambda rates: [rates[len(rates) // 2]])


def plan_front(config: CompareConfig) -> list[PlannedRun]:
    """The other rates of every arm on all seeds, of which only forgetting is measured."""
    if not config.front:
        return []
    evaluation = {**config.examination, "axes": [FORGETTING]}
    return _at_rates(config, evaluation, "front", lambda rates: [r for r in rates if r != rates[len(rates) // 2]])


def _at_rates(
    config: CompareConfig, evaluation: dict[str, Any], role: Role, chosen: Callable[[list[float]], list[float]]
) -> list[PlannedRun]:
    return [
        run
        for seed in config.seed_list
        for method in config.method_list
        for rate in chosen(config.rates_of(method))
        for run in plan_arms(config, evaluation, role, [method], [seed], config.at_rate(method, rate))
    ]


def plan_arms(
    config: CompareConfig,
    evaluation: dict[str, Any],
    role: Role = "main",
    arms: Iterable[str] = (),
    seeds: Iterable[int] = (),
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> list[PlannedRun]:
    """Arms x seeds, all of the comparison unless given, with changes over what an arm changes.

    Seeds come first, so that runs that are compared execute side by side.
    """
    return [
        plan_run(config.run(arm, seed, **changes), role, evaluation, arm)
        for seed in seeds or config.seed_list
        for arm in arms or config.arms
    ]


def plan_equal_seconds(
    config: CompareConfig,
    main: list[PlannedRun],
    results: dict[str, dict[str, Any]],
    ratios: Mapping[str, float] | None = None,
) -> list[PlannedRun]:
    """Runs that give other arms the training time of the subject, with the schedule decayed in that time.

    Time goes by the ratios of steps that were timed in turns, or else by what the runs at equal steps have logged. No runs
    without the subject, and none for an arm whose step takes as long as the subject's within `SAME_SECONDS`.
    """
    logged = {arm: _median(arm, main, results, "median_step_seconds") for arm in config.arms}
    seconds: Mapping[str, float | None] = logged if ratios is None else ratios
    target = seconds.get(config.subject)
    runs: list[PlannedRun] = []
    for arm in config.given_time:
        own, count = seconds.get(arm), _median(arm, main, results, "steps")
        if target is None or own is None or count is None or abs(target / own - 1) < SAME_SECONDS:
            continue
        longer = {"max_steps": max(1, round(count * target / own)), "num_train_epochs": None}
        # Axes are compared at equal steps only: what nobody reads is not measured.
        runs += plan_arms(config, {"axes": []}, "equal_seconds", [arm], changes=longer)
    return runs


def plan_run(run: RunConfig, role: Role, evaluation: dict[str, Any], arm: str = "") -> PlannedRun:
    """The line of a run that reads what lies there now."""
    config = run.to_dict()
    return PlannedRun(run.method, run.seed, role, config, evaluation, inputs(config, evaluation), arm)


def inputs_of_training(config: CompareConfig) -> Inputs:
    """What the first run reads until it is trained, as it lies there now."""
    return inputs(config.run(next(iter(config.arms)), config.seed_list[0]).to_dict(), {})


def _median(arm: str, runs: list[PlannedRun], results: dict[str, dict[str, Any]], key: str) -> float | None:
    own = [results[run.id] for run in runs if run.arm == arm and run.id in results]
    values = [result[key] for result in own if result["status"] == "finished"]
    return float(median(values)) if values else None


def read_plan(folder: Path) -> list[PlannedRun]:
    """The runs of `plan.jsonl`, in order; none if there is no plan yet."""
    path = folder / "plan.jsonl"
    if not path.exists():
        return []
    try:
        return [msgspec.convert(line, PlannedRun) for _, line in json_lines(path)]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to plan again") from None


def write_plan(folder: Path, runs: list[PlannedRun]) -> None:
    """Writes `plan.jsonl` in one move; what was concluded from another plan goes first, lest it be shown beside this one."""
    path, text = folder / "plan.jsonl", "".join(json.dumps(run.line(), sort_keys=True) + "\n" for run in runs)
    if path.exists() and path.read_bytes() != text.encode():
        for name in CONCLUSIONS:
            (folder / name).unlink(missing_ok=True)
    write_whole(path, text)


def kept_equal_seconds(
    config: CompareConfig, earlier: list[PlannedRun], main: list[PlannedRun]
) -> list[PlannedRun] | None:
    """The equal-seconds runs of an earlier execution of the same comparison, if its plan got that far.

    Their lengths come from a timing that would differ a little each time; repeating the comparison must not plan new
    ones.
    """
    ids = {run.id for run in main}
    extra = [run for run in earlier if run.role == "equal_seconds"]
    same = {run.id for run in earlier if run.role == "main"} == ids
    return extra if same and extra and config.equal_seconds else None

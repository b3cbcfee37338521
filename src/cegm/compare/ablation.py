"""`AblationConfig`: a base configuration, the changes that are tried one at a time, and the runs that they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cegm.compare.config import CompareConfig, read_declared
from cegm.compare.plan import SAME_SECONDS, PlannedRun, plan_run
from cegm.spelling import nearest
from cegm.train.config import DEFAULT_STEPS, option

METHOD = "cegm"
BASE = "base"
CONTROLS = "controls"


@dataclass(frozen=True)
class Arm:
    """One configuration of the ablation: the base, or the base with one declared change.

    Attributes:
        part: Part of the method that the change belongs to; `base` for the base itself.
        changes: Run and optimizer options by name.
    """

    part: str
    changes: dict[str, Any]

    @property
    def name(self) -> str:
        """`option=value`, several joined by commas; `base` without changes."""
        return ", ".join(f"{name}={_shown(value)}" for name, value in self.changes.items()) or BASE


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass
class AblationConfig:
    """One ablation. Every field is a flag of `cegm ablate`; the flags of `cegm train` change its base.

    The seeds are tuning seeds, which no comparison uses by default: an ablation *chooses*, and what it chose must be
    confirmed on seeds that had no say.

    Raises:
        ValueError: In one line, for anything that could not run.
    """

    output_dir: str = option("runs/ablation", "ablation folder; runs that it already holds are not repeated")
    changes: str = option("", "YAML file with the changes to try (default: every part of the method)")
    parts: str = option("all", "parts to run, comma-separated")
    seeds: str = option("1000,1001,1002,1003,1004", "how many seeds, or which ones, comma-separated")
    processes: int = option(0, "runs at a time; 0 takes one per core")
    launcher: str = option("local", "where runs execute: local or ray, as in cegm compare")
    costs: bool = option(True, "time each change beside the base, and give controls the base's training time")
    shared: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._runs = CompareConfig(
            output_dir=self.output_dir,
            methods=METHOD,
            seeds=self.seeds,
            processes=self.processes,
            launcher=self.launcher,
            axes="none",
            shared=self.shared,
        )
        declared = read_parts(self.changes)
        self.questions = {entry["part"]: str(entry.get("question", "")) for entry in declared}
        wanted = list(self.questions) if self.parts == "all" else [part.strip() for part in self.parts.split(",")]
        for part in wanted:
            if part not in self.questions:
                raise ValueError(f"part {part!r} does not exist; {nearest(part, self.questions)}")
        changed = [Arm(e["part"], dict(c)) for e in declared if e["part"] in wanted for c in e["changes"]]
        self.arms = [Arm(BASE, {}), *changed]
        for arm in self.arms:
            self._runs.run(METHOD, self.seed_list[0], **arm.changes)

    def add_equal_seconds(self, ratios: Mapping[str, float]) -> None:
        """Adds, for each control whose step is faster than the base's, an arm with as many steps as fit into the base's time.

        Args:
            ratios: Seconds per step over those of the base, by name of the arm.
        """
        for arm in [arm for arm in self.arms if arm.part == CONTROLS]:
            ratio, steps = ratios.get(arm.name, 1.0), self.planned(arm, self.seed_list[0]).config["max_steps"]
            if ratio < 1.0 - SAME_SECONDS:
                longer = round((steps or DEFAULT_STEPS) / ratio)
                self.arms.append(Arm(CONTROLS, {**arm.changes, "max_steps": longer}))

    @property
    def seed_list(self) -> list[int]:
        """Seeds of every arm."""
        return self._runs.seed_list

    def planned(self, arm: Arm, seed: int) -> PlannedRun:
        """The run of one arm on one seed."""
        return plan_run(self._runs.run(METHOD, seed, **arm.changes), "main", {"axes": []})

    def plan(self) -> list[PlannedRun]:
        """All arms on all seeds; seeds first, so that an interrupted ablation has whole seeds."""
        return [self.planned(arm, seed) for seed in self.seed_list for arm in self.arms]


def read_parts(path: str) -> list[dict[str, Any]]:
    """The declared parts: `part`, `question` and `changes` of each.

    Args:
        path: YAML file; empty for the changes that come with the package.

    Raises:
        ValueError: Missing or broken file, in one line.
    """
    parts = read_declared(path, "ablation.yaml")
    if not isinstance(parts, list) or not all(_is_part(entry) for entry in parts):
        raise ValueError(f"{path} must list entries such as '- {{part: powers, changes: [{{power: -0.5}}]}}'")
    return parts


def _is_part(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and isinstance(entry.get("part"), str)
        and isinstance(entry.get("changes"), list)
        and all(isinstance(change, Mapping) and change for change in entry["changes"])
    )

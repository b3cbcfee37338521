"""`AblationConfig`: a base and the changes of it that are tried one at a time, as the arms of one comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cegm.lab.baselines import SUBJECT
from cegm.lab.compare.arms import Part, changed
from cegm.lab.compare.config import CompareConfig, read_declared
from cegm.lab.train.config import option
from cegm.spelling import nearest


@dataclass
class AblationConfig:
    """One ablation. Every field is a flag of `cegm ablate`; the flags of `cegm train` change its base.

    The seeds are tuning seeds, which no comparison uses by default: an ablation *chooses*, and what it chose must be
    confirmed on seeds that had no say.

    Attributes:
        comparison: What is run and judged.

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
        declared = read_parts(self.changes)
        names = [part.name for part in declared]
        wanted = names if self.parts == "all" else [name.strip() for name in self.parts.split(",")]
        for name in wanted:
            if name not in names:
                raise ValueError(f"part {name!r} does not exist; {nearest(name, names)}")
        self.comparison = CompareConfig(
            output_dir=self.output_dir,
            methods=SUBJECT,
            seeds=self.seeds,
            processes=self.processes,
            launcher=self.launcher,
            equal_seconds=self.costs,
            axes="none",
            overhead=self.costs,
            parts=tuple(part for part in declared if part.name in wanted),
            shared=self.shared,
        )


def read_parts(path: str) -> list[Part]:
    """The declared parts.

    Args:
        path: YAML file; empty for the changes that come with the package.

    Raises:
        ValueError: Missing or broken file, in one line.
    """
    parts = read_declared(path, "ablation.yaml")
    if not isinstance(parts, list) or not all(_is_part(entry) for entry in parts):
        raise ValueError(f"{path} must list entries such as '- {{part: powers, changes: [{{power: -0.5}}]}}'")
    return [
        Part(entry["part"], str(entry.get("question", "")), tuple(changed(SUBJECT, dict(c)) for c in entry["changes"]))
        for entry in parts
    ]


def _is_part(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and isinstance(entry.get("part"), str)
        and isinstance(entry.get("changes"), list)
        and all(isinstance(change, Mapping) and change for change in entry["changes"])
    )

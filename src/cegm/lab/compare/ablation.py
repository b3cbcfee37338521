"""`AblationConfig`: a base and the changes of it that are tried one at a time, as the arms of one comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from cegm.lab.baselines import SUBJECT
from cegm.lab.compare.arms import Part, changed
from cegm.lab.compare.compare_config import CompareConfig, ManyRuns, read_declared
from cegm.lab.declarations import option
from cegm.spelling import nearest


@dataclass
class AblationConfig(ManyRuns):
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
    costs: bool = option(True, "time each change beside the base, and give controls the base's training time")

    def __post_init__(self) -> None:
        super().__post_init__()
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


class _Declared(msgspec.Struct):
    part: str
    changes: list[Annotated[dict[str, Any], msgspec.Meta(min_length=1)]]
    question: str = ""


def read_parts(path: str) -> list[Part]:
    """The parts that a YAML file declares, or where none is given the package's; ValueError where it is missing or broken."""
    try:
        parts = msgspec.convert(read_declared(path, "ablation.yaml"), list[_Declared])
    except msgspec.ValidationError:
        raise ValueError(f"{path} must list entries such as '- {{part: powers, changes: [{{power: -0.5}}]}}'") from None
    return [Part(one.part, one.question, tuple(changed(SUBJECT, change) for change in one.changes)) for one in parts]

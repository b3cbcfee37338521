"""`EvaluateConfig`: which model sits which axes on what. No heavy import here: the command line reads this file to print its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cegm.tasks.axis import WORLD
from cegm.train.config import option


@dataclass
class EvaluateConfig:
    """One examination. Every field is a flag of `cegm evaluate`.

    Raises:
        ValueError: In one line, for anything that could not run.
    """

    model_name_or_path: str = option("", "local folder or hub name of a causal language model")
    axes: str = option("all", "axes of the paper, comma-separated")
    data: str = option(WORLD, "world (the generated forms), or a folder of public sets (docs/axes.md)")
    items: int = option(128, "items per level of an axis")
    seed: int = option(0, "draws the items; the same for all models that are to be compared")
    batch_size: int = option(16, "rows per pass; changes no result")
    output_dir: str = option("runs/evaluation", "where items and states go; an interrupted examination goes on there")
    trust_remote_code: bool = option(False, "run code that a hub model brings along")

    def __post_init__(self) -> None:
        if not self.model_name_or_path:
            raise ValueError("which model? give a local folder or a hub name: cegm evaluate runs/mine/model")
        if self.items < 1 or self.batch_size < 1:
            raise ValueError(f"items={self.items} and batch_size={self.batch_size} must be at least 1")
        if self.data != WORLD and not Path(self.data).is_dir():
            raise ValueError(f"data {self.data} is no folder; give 'world' or a folder of public sets (docs/axes.md)")

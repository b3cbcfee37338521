"""`InterpolateConfig`: what lies between a model before and after training. No heavy import here: the command line prints its help."""

from __future__ import annotations

from dataclasses import dataclass

from cegm.lab.declarations import Declared, option


@dataclass
class InterpolateConfig(Declared):
    """One interpolation. Every field is a flag of `cegm interpolate`.

    Raises:
        ValueError: In one line, for anything that could not run.
    """

    model_name_or_path: str = option("", "trained model: folder model of a run, adapters included")
    before: str = option("", "the model that it began as (default: what config.yaml of its run names)")
    share: float = option(0.5, "of training that is kept: 0 is the model before, 1 that after", low=0, high=1)
    output: str = option("runs/interpolated", "folder of the model that is written; must not exist yet")
    trust_remote_code: bool = option(False, "run code that a hub model brings along")

    def __post_init__(self) -> None:
        if not self.model_name_or_path:
            raise ValueError("of which model? give the folder of a trained one: cegm interpolate runs/mine/model")
        super().__post_init__()

"""`ExportConfig`: what of a roll-out goes where. No heavy import here: the command line reads this file to print its help."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cegm.lab.declarations import Declared, option

NAME = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""What Kubernetes takes for a name."""


@dataclass
class ExportConfig(Declared):
    """One export. Every field is a flag of `cegm export`.

    Raises:
        ValueError: In one line, for what could not be exported.
    """

    rollout: str = option("", "folder of the roll-out")
    output_dir: str = option("", "folder for the files (default: exports in that of the roll-out)")
    name: str = option("cegm", "name of the model, in the registry and in the files")
    storage_uri: str = option(
        "pvc://models/release/model", "where the cluster finds the model of the release, as KServe writes it"
    )
    prometheus: str = option("http://prometheus.monitoring:9090", "address of Prometheus, for Argo's analysis")
    most_errors: float = option(0.02, "share of the challenger's requests that may fail", low=0, high=0.5, above=True)
    most_seconds: float = option(10.0, "95th percentile that the challenger's answers may take", low=0, above=True)
    image: str = option("vllm/vllm-openai:v0.11.0", "image of both servers, for compose")
    registry: str = option("", "MLflow server or folder to mirror the release to, such as http://127.0.0.1:5000")

    def __post_init__(self) -> None:
        if not self.rollout:
            raise ValueError("which roll-out? give its folder: cegm export runs/rollout")
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r} is no name in Kubernetes; use small letters, digits and -")
        super().__post_init__()

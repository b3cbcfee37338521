"""Where `report_to` sends the metrics of a run, and whether what that needs is there. No torch here: it is checked before all else."""

from __future__ import annotations

import os
from importlib.util import find_spec

from cegm.spelling import nearest

NONE, ALL = "none", "all"

PACKAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "azure_ml": {"azureml-core": ("azureml.core.run",)},
    "clearml": {"clearml": ("clearml",)},
    "codecarbon": {"codecarbon": ("codecarbon",)},
    "comet_ml": {"comet-ml": ("comet_ml",)},
    "dagshub": {"dagshub": ("dagshub",), "mlflow": ("mlflow",)},
    "dvclive": {"dvclive": ("dvclive",)},
    "flyte": {"flytekit": ("flytekit",)},
    "kubeflow": {},
    "mlflow": {"mlflow": ("mlflow",)},
    "neptune": {"neptune": ("neptune",)},
    "swanlab": {"swanlab": ("swanlab",)},
    "tensorboard": {"tensorboard": ("tensorboard", "tensorboardX")},
    "trackio": {"trackio": ("trackio",)},
    "wandb": {"wandb": ("wandb",)},
}
"""The trackers of transformers: packages that each needs, as pip calls them, and modules of which one proves that it is there."""

SETTINGS = {"kubeflow": "KUBEFLOW_TRAINER_SERVER_URL", "dagshub": "MLFLOW_TRACKING_URI"}
"""Environment variables without which a tracker does not start."""


def listed(report_to: str) -> list[str]:
    """The trackers that `report_to` names, each once; none for `none`, and `all` for all that are installed.

    ValueError for a name that does not exist, a package that is missing, or `none` or `all` beside others.
    """
    names = list(dict.fromkeys(part.strip() for part in report_to.split(",") if part.strip()))
    if not names:
        raise ValueError(f"report_to={report_to!r} names no tracker; use {NONE!r} for no reports")
    for alone in (NONE, ALL):
        if alone in names and len(names) > 1:
            raise ValueError(f"report_to={report_to!r}: {alone!r} stands alone; leave it or the others out")
    for name in names:
        if name not in (NONE, ALL):
            _require(name)
    return [] if names == [NONE] else names


def _require(name: str) -> None:
    if name not in PACKAGES:
        raise ValueError(f"report_to {name!r} does not exist; {nearest(name, [NONE, ALL, *PACKAGES])}")
    missing = [package for package, modules in PACKAGES[name].items() if not any(map(_is_installed, modules))]
    if missing:
        raise ValueError(f"report_to {name!r} needs a package that is not installed: pip install {' '.join(missing)}")
    if name in SETTINGS and SETTINGS[name] not in os.environ:
        raise ValueError(f"report_to {name!r} needs the environment variable {SETTINGS[name]}, which is not set")


def _is_installed(module: str) -> bool:
    """Whether it can be imported; a mere folder of that name, such as trackers leave where they have run, is no module."""
    try:
        spec = find_spec(module)
    except (ModuleNotFoundError, ValueError):  # its parent is not there
        return False
    return spec is not None and spec.origin is not None

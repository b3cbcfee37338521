"""`cegm ablate` from configuration to the table of effects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cegm.compare.ablation import AblationConfig
from cegm.compare.config import CompareConfig
from cegm.compare.cost import measure_costs, read_ratios
from cegm.compare.effects import write_effects
from cegm.compare.execute import execute
from cegm.compare.launch import Launcher, launching
from cegm.compare.plan import write_plan
from cegm.compare.progress import Bars
from cegm.compare.run import require_possible, write_results
from cegm.train.durable import sole_writer


def ablate(config: AblationConfig) -> Path:
    """Plans, executes what is missing, times the arms, and writes results and effects.

    Returns:
        The ablation folder.

    Raises:
        ValueError: Something that would make every run fail, found before the first starts.
    """
    folder = Path(config.output_dir)
    require_possible(CompareConfig(methods="cegm", seeds="1", shared=config.shared))
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder), launching(config.launcher, config.processes) as launcher:
        _ablate(config, folder, launcher)
    return folder


def _ablate(config: AblationConfig, folder: Path, launcher: Launcher) -> None:
    results = _execute(config, folder, launcher)
    if config.costs:
        measure_costs(config, folder)
        config.add_equal_seconds(read_ratios(folder))
        results = _execute(
            config, folder, launcher
        )  # the arms just added; the results of the others are only read again
    if not all(run.id in results for run in config.plan()):
        raise ValueError("text or model was changed while the ablation ran; give the same command again")
    write_results(folder, config.plan(), results)
    write_effects(folder, config, results)


def _execute(config: AblationConfig, folder: Path, launcher: Launcher) -> dict[str, dict[str, Any]]:
    runs = config.plan()
    write_plan(folder, runs)
    with Bars(runs) as bars:
        return execute(folder, runs, launcher, bars.watch)

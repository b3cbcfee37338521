"""Files for KServe, Argo Rollouts and compose, from templates; what is in them follows from the roll-out and the options."""

from __future__ import annotations

from pathlib import Path

from cegm.durable import write_whole
from cegm.lab.exports.export_config import ExportConfig
from cegm.lab.rollout.rollout_state import RolloutState
from cegm.pages import templates

FILES = ("inference_service.yaml", "analysis_template.yaml", "compose.yaml")
TEMPLATES = templates("cegm.lab.exports")


def write(config: ExportConfig, state: RolloutState) -> list[Path]:
    """Writes all files, and says where."""
    folder = Path(config.output_dir or Path(config.rollout) / "exports")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"config": config, "state": state, "percent": round(100 * state.share)}
    return [write_whole(folder / name, TEMPLATES.get_template(f"{name}.txt.j2").render(facts) + "\n") for name in FILES]

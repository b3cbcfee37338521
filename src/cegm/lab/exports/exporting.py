"""`cegm export`: writes the files of a roll-out for other machinery, and mirrors it where a registry is named."""

from __future__ import annotations

from pathlib import Path

from cegm.lab.exports import manifests, registry
from cegm.lab.exports.export_config import ExportConfig
from cegm.lab.rollout import rollout_state
from cegm.lab.rollout.rollout_state import RolloutFolder


def export(config: ExportConfig) -> int:
    """Says what was written and what disagrees; 1 where the registry said something else than the chain."""
    state = rollout_state.read(RolloutFolder(Path(config.rollout)))[0]
    for path in manifests.write(config, state):
        print(path)
    if not config.registry:
        return 0
    found = registry.mirror(config.registry, config.name, state)
    print(
        "\n".join([*found, f"registry: {config.name} at {config.registry} is as the chain says, stage {state.stage!r}"])
    )
    return int(bool(found))

"""What `cegm pilot` does and prints."""

from __future__ import annotations

from pathlib import Path

from cegm.lab.pilot import fixing
from cegm.lab.pilot.pilot_config import PilotConfig


def fix(config: PilotConfig) -> int:
    """Fixes a pilot, and prints every criterion."""
    print("\n".join(fixing.fix(config)))
    return 0


def run(config: PilotConfig) -> int:
    """Runs a pilot, draws its page, and prints its verdict; a light one is fixed on the way, so that one command is enough."""
    from cegm.lab.pilot import conduct

    if config.preset == "lite" and not fixing.PilotFolder(Path(config.output_dir)).audit.exists():
        fix(config)
    print(conduct.told(conduct.run(config), config))
    return page(config)


def page(config: PilotConfig) -> int:
    """Draws the page of a pilot again."""
    from cegm.lab.pilot.sheet import write

    print(f"page: {write(config)}")
    return 0

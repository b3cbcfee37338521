"""What `cegm rollout` does and prints."""

from __future__ import annotations

from pathlib import Path

from cegm.lab.rollout import admission, rollout_state, rollout_table
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.rollout_state import BACK, RolloutFolder


def approve(config: RolloutConfig) -> int:
    """Approves a release, or the next stage of one that waits."""
    print(admission.told(admission.approve(config)))
    return 0


def serve(config: RolloutConfig) -> int:
    """Runs the router."""
    try:
        from cegm.lab.rollout import serving
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed and the router needs it: pip install 'cegm[serve]'"
        ) from error
    return serving.serve(config)


def status(config: RolloutConfig) -> int:
    """Prints where a roll-out stands."""
    folder = _folder(config)
    state, words = rollout_state.rebuild(folder)
    if words:
        print(f"cegm: {words}")
    print(rollout_table.table(folder, state))
    return 0


def back(config: RolloutConfig) -> int:
    """Returns all traffic to the champion, from the next request on."""
    admission.require_given(config, "reason")
    folder = _folder(config)
    state = rollout_state.rebuild(folder)[0]
    if state.stage == BACK:
        raise ValueError(f"{folder.root} is back already: {state.reason}")
    rollout_state.record(folder, "back", reason=config.reason, who=config.who)
    print(f"{folder.root}: {state.stage} -> {BACK}; every request from now on is the champion's")
    return 0


def _folder(config: RolloutConfig) -> RolloutFolder:
    """The folder of a roll-out, of the release that was named, if one was; ValueError where it is of another one."""
    folder = RolloutFolder(Path(config.output_dir).expanduser())
    release = rollout_state.read(folder)[0].release
    if config.release and Path(config.release).expanduser().resolve() != Path(release):
        raise ValueError(f"{folder.root} is the roll-out of {release}, not of {config.release}; give its output_dir")
    return folder

"""Going on from a checkpoint: the newest one that is whole, and only in a run that does the same as the one that made it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegm.durable import sha256
from cegm.lab.declarations import declared
from cegm.lab.records import Count, RunState, checked
from cegm.lab.strict import json_value, read_text
from cegm.lab.train.checkpoints import MANIFEST, OPTIMIZER, DamagedError, newest, verify
from cegm.lab.train.contents import model_hash
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.provenance import code_hash, versions
from cegm.lab.train.run_config import SAID, RunConfig

RUN_STATE = "run_state.json"
LATEST = "latest"

ROWS = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Options whose product over all processes is the rows of a step."""

MAY_DIFFER = (
    "output_dir",
    "data",  # where it lies: the text itself is compared by its hash
    "validation_data",
    "per_device_train_batch_size",  # the rows of a whole step are compared
    "gradient_accumulation_steps",
    "sharding",
    "threads",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "report_to",
    "progress",
    *SAID,
    "explain_rows",
    "dry_run",
    "resume_from_checkpoint",
    "resume_without_optimizer",
)
"""Options that may change with a resumption: they decide what is seen and kept, not what is learnt."""


@dataclass(frozen=True)
class Resumption:
    """What a run goes on from.

    Attributes:
        checkpoint: Its folder, verified.
        state: What the run that made it wrote down.
        notes: Sentences that must be said aloud: newer checkpoints that are damaged, and what keeps the rest from being the same to the bit.
    """

    checkpoint: Path
    state: RunState
    notes: list[str]

    @property
    def has_optimizer(self) -> bool:
        """Whether the optimizer goes on, too."""
        return (self.checkpoint / OPTIMIZER).exists()

    @property
    def manifest(self) -> str:
        """sha256 of the manifest, hex."""
        return sha256(self.checkpoint / MANIFEST)

    def require_same(self, config: RunConfig, data: str, processes: int) -> None:
        """Raises ValueError for the first thing by which a run would not continue the one that made the checkpoint, with both values."""
        name = self.checkpoint.name
        defaults = {name: each.default for name, each in declared(RunConfig).items()}  # options came after checkpoints
        before, now = {**defaults, **self.state.config}, _plain(config)
        model, held = self.state.model, model_hash(config.model_name_or_path)
        moved = model is not None and model == held
        if model is not None and before.get("model_name_or_path") == config.model_name_or_path and not moved:
            raise ValueError(
                f"{name} was made from another model than {config.model_name_or_path} holds now; give the one that the run began with"
            )
        for option in now:
            if option == "model_name_or_path" and moved:
                continue
            if option not in MAY_DIFFER and before.get(option) != now[option]:
                raise ValueError(
                    f"{name} was made with {option}={before.get(option)}, this run has {option}={now[option]}; give the same, or "
                    f"start a new run from its weights with model_name_or_path={self.checkpoint}"
                )
        rows = rows_per_step(before, self.state.processes), rows_per_step(now, processes)
        if rows[0] != rows[1]:
            raise ValueError(
                f"{name} was made with {rows[0]} rows per step, this run has {rows[1]}; choose per_device_train_batch_size and "
                f"gradient_accumulation_steps so that their product over {processes} processes is {rows[0]}"
            )
        if data != self.state.data:
            raise ValueError(
                f"{name} was made from other text than {config.data}; give the text that the run began with"
            )


def rows_per_step(config: dict[str, Any], processes: int) -> int:
    """Rows that all processes together take per optimizer step."""
    return math.prod(int(config[name]) for name in ROWS) * processes


def find(config: RunConfig, folder: RunFolder) -> Resumption:
    """The checkpoint that `resume_from_checkpoint` means: a folder, or `latest` for the newest whole one of the run.

    ValueError where there is none, the one that was named is damaged, or the run folder holds another run.
    """
    may_lack = (OPTIMIZER,) if config.resume_without_optimizer else ()
    if config.resume_from_checkpoint != LATEST:
        checkpoint = Path(str(config.resume_from_checkpoint)).expanduser()
        state = _read(checkpoint, may_lack)
        passed_over: list[str] = []
        if folder.holds_run and checkpoint.resolve().parent != folder.checkpoints.resolve():
            raise ValueError(
                f"output_dir {folder.root} holds another run than {checkpoint}; give the run of the checkpoint, or a free folder"
            )
    else:
        found, passed_over = newest(folder.checkpoints, lambda checkpoint: _read(checkpoint, may_lack))
        if found is None:
            raise ValueError(_nothing_whole(folder, passed_over))
        checkpoint, state = found, _read_state(found)
    said = [f"{damage}; going on from {checkpoint.name} instead" for damage in passed_over]
    resumption = Resumption(checkpoint, state, [*said, *_differences(state, config.sharding)])
    if not resumption.has_optimizer:
        resumption.notes.append(f"{checkpoint.name} has no {OPTIMIZER}: the optimizer starts afresh")
    return resumption


def _nothing_whole(folder: RunFolder, passed_over: list[str]) -> str:
    if passed_over:
        lost = (
            " (resume_without_optimizer goes on with a fresh one)"
            if f"{OPTIMIZER} is missing" in passed_over[0]
            else ""
        )
        return f"no checkpoint of {folder.root} is whole: {'; '.join(passed_over)}{lost}; start again in another output_dir"
    return f"{folder.root} has no checkpoint to resume from; start again in another output_dir, with save_steps to keep checkpoints"


def _read(checkpoint: Path, may_lack: tuple[str, ...]) -> RunState:
    """The state of a checkpoint that is whole; DamagedError where it is not, or lacks what a resumption needs."""
    step = verify(checkpoint, may_lack)
    for name in (OPTIMIZER, RUN_STATE):
        if not (checkpoint / name).exists() and name not in may_lack:
            raise DamagedError(checkpoint, f"{name} is missing")
    state = _read_state(checkpoint)
    if state.step != step:
        raise DamagedError(checkpoint, f"{RUN_STATE} is of step {state.step}, the manifest of step {step}")
    return state


def _read_state(checkpoint: Path) -> RunState:
    try:
        state = checked(json_value(read_text(checkpoint / RUN_STATE), RUN_STATE), RunState, RUN_STATE)
        for name in ROWS:
            checked(state.config.get(name), Count, f"{name} of {RUN_STATE}")
    except ValueError as error:
        raise DamagedError(checkpoint, str(error)) from None
    return state


def described(config: RunConfig) -> dict[str, Any]:
    """What a checkpoint says of the run and the code that made it."""
    return {"config": _plain(config), "versions": {**versions(), "code": code_hash()}}


def _plain(config: RunConfig) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(config.to_dict()))
    return plain


def _differences(state: RunState, sharding: str) -> list[str]:
    """Why the rest will not be to the bit what it would have been."""
    now = {**versions(), "code": code_hash()}
    changed = [f"{name} {old} (now {now.get(name)})" for name, old in state.versions.items() if now.get(name) != old]
    shown = ["another state of cegm's code" if entry.startswith("code ") else entry for entry in changed]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes != state.processes:  # each has random states of its own
        shown.append(f"processes {state.processes} (now {processes})")
    before = state.config.get("sharding")
    if before != sharding:
        shown.append(f"sharding {before} (now {sharding})")
    return (
        [f"the checkpoint was made with {', '.join(shown)}; the rest will not be the same to the bit"] if shown else []
    )

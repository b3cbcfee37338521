"""`cegm pilot run`: the model as it is, the comparison, and the verdict, all held against the fix. What is there is not repeated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec

from cegm.durable import sha256, write_whole
from cegm.lab.compare.compare_config import CompareConfig
from cegm.lab.compare.comparison import compare
from cegm.lab.pilot.fixing import Fix, PilotFolder, require_as_fixed
from cegm.lab.pilot.pilot_config import PilotConfig
from cegm.lab.pilot.pilot_verdict import PilotVerdict, judged
from cegm.lab.records import checked
from cegm.lab.strict import json_object
from cegm.lab.tasks.company import NAME
from cegm.lab.tasks.evaluation import EvaluateConfig, evaluate
from cegm.lab.train.audit import AuditLog, read


def run(config: PilotConfig) -> PilotVerdict:
    """Runs what is missing of a fixed pilot, judges it, and writes its verdict into folder and chain.

    Raises:
        ValueError: Something is not as it was fixed, or a run failed; the line names it.
    """
    before, folder = require_as_fixed(config), PilotFolder(Path(config.output_dir))
    compare(comparison_of(config, folder))
    _examine_base(config, before, folder)
    return conclude(config, before)


def comparison_of(config: PilotConfig, folder: PilotFolder) -> CompareConfig:
    """The comparison that a pilot is."""
    return CompareConfig(
        output_dir=str(folder.comparison),
        methods=config.methods,
        seeds=",".join(map(str, config.seed_list)),
        equal_seconds=False,
        axes=NAME,
        axes_data=str(folder.data),
        items=config.items,
        processes=config.processes,
        launcher=config.launcher,
        own=config.own,
        shared={**config.shared, "data": str(folder.lessons)},
    )


def conclude(config: PilotConfig, before: Fix) -> PilotVerdict:
    """The verdict on what lies in the folder, written into it and its hash into the chain."""
    folder = PilotFolder(Path(config.output_dir))
    _require_base(folder)
    verdict = judged(config, before)
    write_whole(folder.verdict, json.dumps(msgspec.to_builtins(verdict), indent=1, allow_nan=False))
    AuditLog(folder.audit).record("verdict", word=verdict.decision.word, verdict_sha256=sha256(folder.verdict))
    return verdict


def _examine_base(config: PilotConfig, before: Fix, folder: PilotFolder) -> None:
    """Asks the model as it is, unless the chain knows that it was asked; what else lies there is of nobody knows when."""
    if any(event["event"] == "base" for event in read(folder.audit)[0]):
        return
    shutil.rmtree(folder.base, ignore_errors=True)
    model = config.shared["model_name_or_path"]
    asked = EvaluateConfig(
        model_name_or_path=model,
        axes=NAME,
        data=str(folder.data),
        items=len(before.items),
        output_dir=str(folder.base),
    )
    ((_, outcome),), _ = evaluate(asked)
    if outcome.reason:
        raise ValueError(f"{model} could not be asked: {outcome.reason}")
    AuditLog(folder.audit).record("base", model=model, items_sha256=sha256(folder.base / "items.parquet"))


def _require_base(folder: PilotFolder) -> None:
    path = folder.base / "items.parquet"
    known = [event["items_sha256"] for event in read(folder.audit)[0] if event["event"] == "base"]
    if not known or not path.exists() or sha256(path) != known[-1]:
        raise ValueError(f"{path} is not what the chain knows; delete {folder.root} and fix the pilot again")


def read_verdict(config: PilotConfig) -> tuple[PilotVerdict, Fix, str]:
    """The verdict of a pilot, its fix, and the end of its chain; ValueError where any is missing or was changed."""
    before, folder = require_as_fixed(config), PilotFolder(Path(config.output_dir))
    events, end = read(folder.audit)
    known = [event["verdict_sha256"] for event in events if event["event"] == "verdict"]
    if not known or not folder.verdict.exists():
        raise ValueError(f"{folder.root} has no verdict yet: cegm pilot run {folder.options}")
    if sha256(folder.verdict) != known[-1]:
        raise ValueError(f"{folder.verdict} was changed after it was written; run the pilot again")
    return checked(json_object(folder.verdict), PilotVerdict, str(folder.verdict)), before, end


def told(verdict: PilotVerdict, config: PilotConfig) -> str:
    """The verdict in two lines, for the terminal."""
    found, ship = verdict.decision, verdict.checkpoint.decision
    return (
        f"{found.word}: {verdict.method} against {verdict.against}, {100 * found.effect:+.2f} points "
        f"[{100 * found.low:.2f}, {100 * found.high:.2f}] over {found.count} seeds; net {round(found.net):,} {config.currency} "
        f"[{round(found.net_low):,}, {round(found.net_high):,}], probability of profit {found.probability:.2f}\n"
        f"checkpoint of seed {verdict.checkpoint.seed}: {ship.word}, {100 * ship.effect:+.2f} points "
        f"[{100 * ship.low:.2f}, {100 * ship.high:.2f}] over {ship.count} items"
    )

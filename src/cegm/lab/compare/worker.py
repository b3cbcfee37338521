"""One run of a comparison, in a process of its own: train, measure, write `result.json`."""

from __future__ import annotations

import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from cegm.durable import write_whole
from cegm.lab import streams
from cegm.lab.compare.compare_config import HELD_OUT
from cegm.lab.compare.inputs import CHANGED, ChangedError, require_same
from cegm.lab.compare.plan import BEFORE, EXAMINATION_SEED, PlannedRun
from cegm.lab.records import Final, facts
from cegm.lab.train.checkpoints import numbered
from cegm.lab.train.data import load_corpus
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.resume import LATEST
from cegm.lab.train.run_config import RunConfig

if TYPE_CHECKING:
    from cegm.lab.tasks.axis import Axis
    from cegm.lab.tasks.evaluation import Outcome
    from cegm.lab.tasks.examinee import Examinee
    from cegm.lab.tasks.items import Record
    from cegm.lab.train.run import RunSummary

LEFT_BY_TRAINING = (
    "config.yaml", "metrics.jsonl", "audit.jsonl", "explanation.json", "model", "checkpoints", "items.jsonl", "tensorboard",
)  # fmt: skip


def execute(folder: Path, planned: PlannedRun) -> dict[str, Any]:
    """Trains and measures one run, for `result.json`; an earlier attempt that left checkpoints goes on, the folder of any other is replaced.

    Raises ChangedError where what it reads is not what it was planned for, or was changed while it was at work.
    """
    require_same(planned.inputs, planned.config, planned.evaluation)
    summary = _train(folder, RunConfig(**{**planned.config, "output_dir": str(folder)}))
    outcomes = examine(folder, planned)
    require_same(planned.inputs, planned.config, planned.evaluation)
    items = [asdict(record) for outcome in outcomes for record in outcome.records]
    write_whole(folder / "items.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    final = facts(summary, Final)
    return {
        "id": planned.id,
        "method": planned.method,
        "seed": planned.seed,
        "role": planned.role,
        "status": "finished",
        "error": None,
        "final_loss": final.pop("loss"),
        "trained_length": planned.config["max_length"],
        "retention": by_length([item for item in items if item["axis"] == "retention"]),
        "axes": {outcome.axis: outcome.state() for outcome in outcomes},
        **final,
    }


def _train(folder: Path, config: RunConfig) -> RunSummary:
    from cegm.lab.train.run import train

    if numbered(folder / "checkpoints"):
        try:
            return train(replace(config, resume_from_checkpoint=LATEST))
        except ValueError as error:  # none of them is whole, or they are of another version of this run
            print(f"cegm: warning: starting again: {error}", file=sys.stderr)
    for name in LEFT_BY_TRAINING:
        leftover = folder / name
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return train(config)


def examine(folder: Path, planned: PlannedRun) -> list[Outcome]:
    """The axes of the plan for the saved model. One set of items for all runs: the seed of a run decides its training, never its examination."""
    if not planned.evaluation["axes"]:
        return []
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from cegm.lab.tasks.axes import chosen
    from cegm.lab.tasks.evaluation import measure
    from cegm.lab.tasks.examinee import Examinee

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    examinee = Examinee(model, AutoTokenizer.from_pretrained(folder / "model"))
    source, items = planned.evaluation["source"], planned.evaluation["items"]
    axes = [_prepared(axis, folder, planned) for axis in chosen(",".join(planned.evaluation["axes"]))]
    return [measure(examinee, axis, source, items, EXAMINATION_SEED) for axis in axes]


def _prepared(axis: Axis, folder: Path, planned: PlannedRun) -> Axis:
    """The axis with what only a comparison knows: the model before, and held-out text in place of public sets."""
    from cegm.lab.tasks.forgetting import ForgettingAxis

    if isinstance(axis, ForgettingAxis):
        return replace(axis, before=folder.parents[1] / BEFORE, card=RunFolder(folder).card)
    if planned.evaluation["source"] != HELD_OUT:
        return axis
    texts = load_corpus(RunConfig(**{**planned.config, "output_dir": str(folder)})).validation
    return replace(axis, measured=partial(_retained, texts))


def _retained(texts: list[Any], examinee: Examinee, _: object, items: int, seed: int) -> list[Record]:
    """Context retention on held-out texts, at every length that the model and they reach."""
    from cegm.lab.tasks import retention
    from cegm.lab.tasks.items import NotMeasured

    lengths = [n for n in retention.LENGTHS if examinee.positions is None or n <= examinee.positions]
    reason = f"the model has {examinee.positions} positions"
    while lengths:
        try:
            return retention.evaluate(
                examinee.model, examinee.tokenizer, data=texts, lengths=lengths, items_per_length=items, seed=seed
            )
        except ValueError as error:  # too little text for the longest context: a shorter one may do
            reason = str(error)
            lengths.pop()
    raise NotMeasured(reason)


def by_length(items: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean accuracy, continuous score and chance at each length."""
    levels: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for item in items:
        levels[item["level"]].append(item)
    return {
        str(level): {
            "accuracy": mean(item["score"] for item in members),
            "score": mean(item["continuous"] for item in members),
            "chance": mean(item["chance"] for item in members),
            "items": len(members),
        }
        for level, members in sorted(levels.items())
    }


def work(folder: Path, line: Mapping[str, Any]) -> None:
    """All of a run, from its line of the plan; a user error ends the process with one line and exit code 2."""
    torch.set_num_threads(1)
    with streams.readable():
        try:
            result = execute(folder, msgspec.convert(line, PlannedRun))
        except (ValueError, OSError, RuntimeError) as error:
            print(" ".join(str(error).split()), file=sys.stderr)
            sys.exit(CHANGED if isinstance(error, ChangedError) else 2)
        write_whole(folder / "result.json", json.dumps(result, indent=1))
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # the run is over; many runs would fill the disk

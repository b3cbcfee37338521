"""Goes on from trained weights at many learning rates, and writes what the loss of their own text and of a new one becomes.

    python benchmarks/trained_defaults.py --own FOLDER --new FOLDER --output benchmarks/results/trained_defaults/rates.jsonl

The fresh models are trained on the own text (AdamW, `cegm train`'s defaults). From their weights every method then goes on for a
few steps at every rate, all weights or LoRA adapters, on the own text and on the new one; a line of the log holds the losses on
held-out text of both before and after. `--table` prints the log by method: the largest rate up to which the loss of the own text
never rises by more than `TOLERATED`, and what that rate has learnt of the new text. A line that the log holds is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import get_scheduler

from cegm.lab.baselines import METHODS
from cegm.lab.compare.learner import Learner
from cegm.lab.train.evaluate import ValidationSet, validate
from cegm.lab.train.folder import hardware
from cegm.lab.train.model import byte_tokenizer, load_model, with_adapters
from cegm.lab.train.prepare import quieten
from cegm.lab.train.provenance import versions
from cegm.lab.train.run_config import RunConfig

ROWS, LENGTH, HELD_OUT_ROWS = 4, 64, 64
BASE_STEPS, BASE_ROWS = 500, 16
TOLERATED = 0.01
"""Nats per token."""

RATES = {0: (3e-5, 1e-4, 3e-4, 1e-3, 3e-3), 8: (3e-4, 1e-3, 3e-3, 1e-2)}
"""Peak learning rates by rank of the adapters; 0 is all weights."""

WAYS = (("own", 5), ("own", 20), ("own", 60), ("new", 60))
"""Texts and steps."""

MODELS = {"tiny": tuple(METHODS), "reader": tuple(METHODS), "small": ("adamw", "cegm")}
"""Fresh models, and the methods that go on from each; `small` with all weights only: how the harmless rate falls with size."""

Text = tuple[Tensor, Tensor]
"""Tokens to train on and held-out rows, (tokens,) and (rows, tokens)."""


def read(folder: Path, files: int = 24, held_out: int = 6, letters: int = 120_000) -> Text:
    """The beginnings of some files, spread over all of a folder; every `held_out`-th file is held out."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".txt", ".md", ".rst")]
    if len(paths) < files:
        raise SystemExit(f"{folder} holds {len(paths)} files, too few to take {files} of them")
    chosen = [paths[index] for index in np.linspace(0, len(paths) - 1, files).round().astype(int)]
    tokenizer = byte_tokenizer()
    tokens = [torch.tensor(tokenizer(path.read_text(encoding="utf-8-sig")[:letters])["input_ids"]) for path in chosen]
    training = torch.cat([each for index, each in enumerate(tokens) if index % held_out])
    # Equal parts of every held-out file, not the first one alone.
    per_file = HELD_OUT_ROWS // len(tokens[::held_out])
    return training, torch.cat([each[: per_file * LENGTH].reshape(-1, LENGTH) for each in tokens[::held_out]])


def batches(text: Tensor, rows: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Rows at random places, (rows, tokens) per step; the same for every method and rate."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        starts = torch.from_numpy(rng.integers(0, len(text) - LENGTH, rows))
        yield text[starts[:, None] + torch.arange(LENGTH)]


def go_on(config: RunConfig, model: nn.Module, text: Tensor, rows: int, steps: int) -> Learner:
    """The model after `steps` steps of a run."""
    learner = Learner(config, model)
    warmup = config.warmup_steps if config.warmup_steps >= 1 else np.ceil(config.warmup_steps * steps)
    schedule = get_scheduler(config.lr_scheduler_type, learner.optimizer, int(warmup), steps)
    for batch in batches(text, rows, steps, config.seed):
        loss, _ = learner.gradients([batch])
        learner.update(loss)
        schedule.step()
    if hasattr(learner.optimizer, "eval"):
        learner.optimizer.eval()
    return learner


def losses(model: nn.Module, texts: dict[str, Text]) -> dict[str, float]:
    """Held-out loss of each text, nats per token."""
    found = {}
    for name, (_, rows) in texts.items():
        held_out = ValidationSet(
            [{"input_ids": part, "labels": part} for part in rows.split(16)], rows[:, 1:].numel(), 1
        )
        found[name] = round(validate(model, held_out).loss, 5)
    return found


def planned(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The settings of every line; a rate that is None is the method's default."""
    for model in arguments.models.split(","):
        methods = [method for method in arguments.methods.split(",") if method in MODELS[model]]
        for method, rank in itertools.product(methods, (0,) if model == "small" else RATES):
            for rate, (text, steps) in itertools.product((None,) if arguments.defaults else RATES[rank], WAYS):
                yield {"model": model, "method": method, "rank": rank, "rate": rate, "steps": steps, "text": text}


def measure(point: dict[str, Any], base: nn.Module, texts: dict[str, Text], options: dict[str, Any]) -> dict[str, Any]:
    """The line of one point."""
    config = RunConfig(
        "trained",
        method=point["method"],
        learning_rate=point["rate"],
        lora_r=point["rank"],
        max_length=LENGTH,
        **options,
    )
    torch.manual_seed(0)
    model = copy.deepcopy(base)
    begun = time.perf_counter()
    learner = go_on(
        config, with_adapters(model, config) if config.lora_r else model, texts[point["text"]][0], ROWS, point["steps"]
    )
    return {**point, "seconds": round(time.perf_counter() - begun, 3), "after": losses(learner.model, texts)}


def table(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """By model, method and rank: the largest harmless rate; at every rate how the loss of the own text changed at worst, and of the new."""
    groups = itertools.groupby(lines, key=lambda line: (line["model"], line["method"], line["rank"]))
    return pd.DataFrame([row(list(group)) for _, group in groups]).fillna("")


def row(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The table's row of one model, method and rank."""
    worst: dict[float, float] = {}
    learnt: dict[float, float] = {}
    for line in lines:
        text, rate = line["text"], line["rate"]
        change = line["after"][text] - line["before"][text]
        if text == "own":
            worst[rate] = max(change, worst.get(rate, change))
        else:
            learnt[rate] = change
    harmless = [rate for rate, _ in itertools.takewhile(lambda item: item[1] <= TOLERATED, worst.items())]
    shown = {rate: f"{worst[rate]:+.3f} {learnt.get(rate, 0.0):+.2f}" for rate in worst}
    named = {"default" if rate is None else f"{rate:g}": text for rate, text in shown.items()}
    identity = {name: lines[0][name] for name in ("model", "method", "rank")}
    return {**identity, "harmless": harmless[-1] if harmless else 0.0, **named}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--own", type=Path, help="folder of the text that the models are trained on")
    parser.add_argument("--new", type=Path, help="folder of another text")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--warmup", type=float, default=0.05)
    parser.add_argument("--weight_decay", type=float, default=0.1)
    parser.add_argument("--defaults", action="store_true", help="with every method's defaults and nothing else")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print the log, measure nothing")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    lines = []
    if arguments.output.exists():
        lines = [json.loads(line) for line in arguments.output.read_text(encoding="utf-8").splitlines()]
    if arguments.table:
        print(table(lines[1:]).to_string(index=False))
        return
    quieten()
    torch.set_num_threads(1)
    options = {"warmup_steps": arguments.warmup, "weight_decay": arguments.weight_decay, "aux_lr": None}
    options = {} if arguments.defaults else options
    texts = {"own": read(arguments.own), "new": read(arguments.new)}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    head = {
        **options, "rows": ROWS, "length": LENGTH, "base": [BASE_STEPS, BASE_ROWS], "own": arguments.own.name,
        "new": arguments.new.name, "hardware": hardware(), "versions": versions(),
    }  # fmt: skip
    if not lines:
        arguments.output.write_text(json.dumps(head) + "\n", encoding="utf-8")
    elif lines[0] != head:
        raise SystemExit(f"{arguments.output} was written with other settings; choose another file")
    points = list(planned(arguments))
    done = [{name: line[name] for name in points[0]} for line in lines[1:]]
    for name in dict.fromkeys(point["model"] for point in points):
        missing = [point for point in points if point["model"] == name and point not in done]
        if not missing:
            continue
        fresh = RunConfig(name, method="adamw", data=str(arguments.own), max_length=LENGTH)
        base = go_on(fresh, load_model(fresh, byte_tokenizer()), texts["own"][0], BASE_ROWS, BASE_STEPS).model
        before = losses(base, texts)
        print(f"{name}: {before}", flush=True)
        for point in missing:
            line = measure(point, base, texts, options)
            with arguments.output.open("a", encoding="utf-8") as log:
                log.write(json.dumps({**line, "before": before}) + "\n")


if __name__ == "__main__":
    main()

"""Pretrains one model with every method in one process, in turns, and writes every loss: the log that a claim rests on.

    python benchmarks/pretrain.py --text FOLDER --size 0.8M --steps 300 --seeds 0,1 \
        --settings benchmarks/settings.json --output benchmarks/results/pretrain/novels.jsonl

Methods share weights, batches and schedule (warm-up, then cosine to zero; schedule-free AdamW keeps its rate) and take
turns every `--turn` steps, so that a slow minute of the machine hits all of them. Seconds are those of whole steps,
validation excluded. A seed that the log already holds is not repeated. Text is bytes, or tokens of any vocabulary from
a .npy file of uint16. Needs torch and numpy only; SOAP and schedule-free AdamW need their libraries too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import text
from cegm.lab.baselines import build_optimizer
from model import LanguageModel

SIZES = {"0.1M": (64, 2, 2), "0.8M": (128, 4, 4), "3M": (256, 4, 4), "30M": (512, 9, 8), "124M": (768, 12, 12)}
"""Hidden width, layers, heads; weights of the blocks, without the embedding."""

VALIDATION_SEED = 2**31


def factor(step: int, steps: int, warmup: int, constant: bool) -> float:
    """The schedule's part of the learning rate at `step`, counted from 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if constant else 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Contestant:
    """One method on one seed: model, optimizer, step and clock."""

    def __init__(self, name: str, settings: dict[str, Any], arguments: argparse.Namespace, seed: int) -> None:
        torch.manual_seed(seed)
        hidden, layers, heads = SIZES[arguments.size]
        self.name, self.steps, self.warmup = name, arguments.steps, arguments.warmup
        self.model = LanguageModel(arguments.vocabulary, hidden, layers, heads).to(arguments.device)
        self.autocast = arguments.autocast
        options = {**settings, "lr": settings["lr"] * arguments.rate}
        self.method = options.pop("method", name)
        self.optimizer = build_optimizer(self.method, self.model, **options)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.step, self.seconds = 0, 0.0

    def train(self, batches: list[torch.Tensor]) -> list[float]:
        """Takes one step per batch, (rows, length) each; their losses."""
        if hasattr(self.optimizer, "train"):
            self.optimizer.train()
        self.model.train()
        start = time.perf_counter()
        losses = [self._step(batch) for batch in batches]
        found = torch.stack(losses).tolist()  # waits for the device
        self.seconds += time.perf_counter() - start
        return found

    def _step(self, batch: torch.Tensor) -> torch.Tensor:
        part = factor(self.step, self.steps, self.warmup, self.method == "schedule_free")
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * part
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=self.autocast):
            loss = self.model(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def validate(self, batches: list[torch.Tensor]) -> float:
        """Mean loss in nats per token."""
        if hasattr(self.optimizer, "eval"):
            self.optimizer.eval()
        self.model.eval()
        return float(torch.stack([self.model(batch) for batch in batches]).double().mean())


def run_seed(arguments: argparse.Namespace, settings: dict[str, Any], seed: int, data: tuple[np.ndarray, ...]) -> None:
    """All methods on one seed, a line per method and turn; the lines are written when all of them are done."""
    training, held_out = data
    rng = np.random.default_rng(VALIDATION_SEED)
    fixed = text.rows(held_out, arguments.validation_rows, arguments.length, rng)
    validation = list(torch.from_numpy(fixed).to(arguments.device).split(arguments.rows))
    rng = np.random.default_rng(seed)
    # So that no method's clock pays for the first use of the device:
    Contestant("adamw", {"lr": 0.0}, arguments, seed).train(validation[:1])
    contestants = [Contestant(name, settings[name], arguments, seed) for name in settings]
    lines: list[dict[str, Any]] = []
    while contestants[0].step < arguments.steps:
        count = min(arguments.turn, arguments.steps - contestants[0].step)
        drawn = [text.rows(training, arguments.rows, arguments.length, rng) for _ in range(count)]
        batches = [torch.from_numpy(each).to(arguments.device) for each in drawn]
        turns = len(lines) // len(contestants)
        for contestant in contestants if turns % 2 == 0 else reversed(contestants):
            losses = contestant.train(batches)
            lines.append(
                {
                    "method": contestant.name,
                    "seed": seed,
                    "step": contestant.step,
                    "tokens": contestant.step * arguments.rows * arguments.length,
                    "seconds": contestant.seconds,
                    "loss": [round(loss, 5) for loss in losses],
                    "validation": contestant.validate(validation),
                    "weights": sum(p.numel() for p in contestant.model.parameters()),
                }
            )
        newest = sorted(lines[-len(contestants) :], key=lambda line: line["validation"])
        shown = "  ".join(f"{line['method']} {line['validation']:.4f}" for line in newest)
        print(f"seed {seed} step {contestants[0].step}/{arguments.steps}  {shown}", flush=True)
    with arguments.output.open("a", encoding="utf-8") as log:
        log.writelines(json.dumps(line) + "\n" for line in lines)


def header(arguments: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """What the log begins with: everything but the seeds that decides its numbers."""
    kept = {k: v for k, v in vars(arguments).items() if k not in ("output", "text", "settings", "seeds", "methods")}
    hardware = f"{os.cpu_count()} cores, CPU" if arguments.device == "cpu" else torch.cuda.get_device_name()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"settings": settings, **kept, "text": arguments.text.name, "hardware": hardware, "versions": versions}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--text", type=Path, required=True, help="world, a folder of .txt and .md, one such file, or tokens in .npy"
    )
    parser.add_argument("--vocabulary", type=int, default=256)
    parser.add_argument(
        "--settings", type=Path, required=True, help="JSON: options of each method, lr included, by name"
    )
    parser.add_argument("--methods", default="", help="of those in the file; default: all")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="times every method's lr; aux_lr stays where the settings give it"
    )
    parser.add_argument("--size", choices=SIZES, default="0.8M")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--validation_rows", type=int, default=64)
    parser.add_argument("--turn", type=int, default=25)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", action="store_true", help="forward passes in bfloat16")
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    settings = json.loads(arguments.settings.read_text(encoding="utf-8"))
    settings = {name: settings[name] for name in arguments.methods.split(",")} if arguments.methods else settings
    first = header(arguments, settings)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if not arguments.output.exists():
        arguments.output.write_text(json.dumps(first) + "\n", encoding="utf-8")
    lines = [json.loads(line) for line in arguments.output.read_text(encoding="utf-8").splitlines()]
    if lines[0] != json.loads(json.dumps(first)):
        raise SystemExit(f"{arguments.output} was written with other settings; choose another file")
    done = {line["seed"] for line in lines[1:]}
    if arguments.text.suffix == ".npy":
        tokens = np.load(arguments.text, mmap_mode="r")
        cut = len(tokens) * (text.VALIDATION_PART - 1) // text.VALIDATION_PART
        data = (tokens[:cut], tokens[cut:])
    else:
        data = text.load(arguments.text)
    for seed in map(int, arguments.seeds.split(",")):
        if seed not in done:
            run_seed(arguments, settings, seed, data)


if __name__ == "__main__":
    main()

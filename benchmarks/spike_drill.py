"""How each method recovers from one bad step: the same run with and without a spike, from the same weights on the same batches.

    python benchmarks/spike_drill.py --settings benchmarks/settings.json --seeds 0,1,2 --output benchmarks/results/spikes/drill.jsonl

At step `--at` a run is copied, optimizer and all. One copy goes on undisturbed, the others take one bad step: their gradient
times 1000 (`gradient`), or a batch of random bytes (`data`). Without and with clipping to norm 1. What is written is the
excess: the training loss of a disturbed copy minus that of the undisturbed one on the same batch. The learning rate is
constant after warm-up, so that no schedule heals what a method does not. Needs torch and numpy only.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import clip_grad_norm_

import text
from cegm.baselines import build_optimizer
from model import LanguageModel

SPIKES = ("gradient", "data")
CLIPS = (0.0, 1.0)
STRENGTH = 1000.0
HEALED, SMOOTH, LAST = 0.02, 5, 10
"""A method has recovered when the mean excess of `SMOOTH` steps stays below `HEALED` nats; what is left is that of the `LAST` steps."""


class Run:
    """One method on its way: model, optimizer, and the clipping that it lives under (0: none)."""

    def __init__(self, method: str, options: dict[str, Any], clip: float, arguments: argparse.Namespace) -> None:
        self.model = LanguageModel(256, arguments.hidden, arguments.layers, 4)
        self.optimizer = build_optimizer(method, self.model, **options)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.clip, self.warmup, self.step = clip, arguments.warmup, 0

    def train(self, batch: torch.Tensor, strength: float = 1.0) -> float:
        """One step on (rows, length) bytes, whose gradient is multiplied by `strength`; returns the loss, nats per byte."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * min(1.0, (self.step + 1) / self.warmup)
        loss = self.model(batch)
        (strength * loss).backward()
        if self.clip:
            clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return float(loss)


def excesses(run: Run, batches: list[torch.Tensor], generator: torch.Generator) -> dict[str, list[float]]:
    """By spike, what each loss after the bad step lies above that of the undisturbed copy.

    Args:
        run: As it is before the bad step.
        batches: That of the bad step, then those after it, (rows, length) each.
        generator: Draws the random bytes.
    """
    copies = {name: copy.deepcopy(run) for name in SPIKES}
    noise = torch.randint(0, 256, batches[0].shape, generator=generator)
    copies["gradient"].train(batches[0], STRENGTH)
    copies["data"].train(noise)
    run.train(batches[0])
    undisturbed = [run.train(batch) for batch in batches[1:]]
    return {
        name: [one.train(batch) - loss for batch, loss in zip(batches[1:], undisturbed, strict=True)]
        for name, one in copies.items()
    }


def recovery(excess: list[float]) -> int | None:
    """Steps until the mean excess of `SMOOTH` steps is below `HEALED` for good; 0 if it never was above, None if it is in the end."""
    smooth = np.convolve(excess, np.ones(SMOOTH) / SMOOTH, mode="valid")
    above = np.flatnonzero(~(smooth < HEALED))  # a loss that is not finite is not below
    if not len(above):
        return 0
    last = int(above[-1])
    return None if last == len(smooth) - 1 else last + 1


def drill(
    arguments: argparse.Namespace, settings: dict[str, Any], seed: int, training: np.ndarray
) -> list[dict[str, Any]]:
    """A line per method, clipping and spike."""
    rng = np.random.default_rng(seed)
    count = arguments.at + 1 + arguments.after
    batches = [torch.from_numpy(text.rows(training, arguments.rows, arguments.length, rng)) for _ in range(count)]
    lines = []
    for method, options in settings.items():
        for clip in CLIPS:
            torch.manual_seed(seed)
            run = Run(method, options, clip, arguments)
            for batch in batches[: arguments.at]:
                run.train(batch)
            found = excesses(run, batches[arguments.at :], torch.Generator().manual_seed(seed))
            for spike, excess in found.items():
                line = {"method": method, "seed": seed, "clip": clip, "spike": spike}
                lines.append({**line, "excess": [round(each, 5) if np.isfinite(each) else None for each in excess]})
                print(f"{line} peak {max(excess):.3f} recovered after {recovery(excess)} steps", flush=True)
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: medians over seeds of the highest excess, the steps to recovery and what is left."""
    rows = [
        "| spike | clipping | method | highest excess, nats | steps to recover | left at the end |",
        "|---|---|---|---|---|---|",
    ]
    keys = dict.fromkeys((line["spike"], line["clip"], line["method"]) for line in lines)
    after = len(lines[0]["excess"])
    for spike, clip, method in sorted(keys, key=lambda key: (SPIKES.index(key[0]), key[1])):
        own = [
            [np.inf if each is None else each for each in line["excess"]]
            for line in lines
            if (line["spike"], line["clip"], line["method"]) == (spike, clip, method)
        ]
        steps = sorted(after + 1 if (found := recovery(each)) is None else found for each in own)
        median, most = np.median(steps), steps[-1]
        said = (
            f"more than {after}" if median > after else f"{median:.0f}" + (f" (up to {most})" if most <= after else "")
        )
        peak, left = np.median([max(each) for each in own]), np.median([np.mean(each[-LAST:]) for each in own])
        limit = f"norm {clip:g}" if clip else "none"
        rows.append(f"| {spike} | {limit} | {method} | {peak:+.3f} | {said} | {left:+.3f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, default=text.WORLD)
    parser.add_argument("--settings", type=Path, required=True, help="JSON: options of each method by name")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--at", type=int, default=60, help="steps before the bad one")
    parser.add_argument("--after", type=int, default=100, help="steps after it")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = json.loads(arguments.settings.read_text())
    training, _ = text.load(arguments.text)
    kept = {name: value for name, value in vars(arguments).items() if name not in ("output", "text", "settings")}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    first = {"settings": settings, **kept, "text": arguments.text.name, "cores": os.cpu_count(), "versions": versions}
    lines = [
        line for seed in map(int, arguments.seeds.split(",")) for line in drill(arguments, settings, seed, training)
    ]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("".join(json.dumps(line) + "\n" for line in [first, *lines]))
    print(table(lines))


if __name__ == "__main__":
    main()

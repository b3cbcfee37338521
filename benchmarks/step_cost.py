"""What a whole training step costs with each method, where the time goes, and how far that is from the arithmetic.

    python benchmarks/step_cost.py --hidden 128,256 --tokens 2048 --output benchmarks/results/step_cost/cpu.jsonl

Methods take turns block by block, A B C C B A, each with a model of its own; 16 blocks of 25 steps are a whole number of
every method's refresh intervals (10, 16, 25, 50). Reported per method: the mean step, its ratio to Muon's with a 95 % interval
from resampling the rounds, and for CEGM's family the parts of it: forward-backward, capture (what a recording step adds
to that), step, refresh (what a refresh adds to that); for other methods a refresh is inside the step. The floor beside
the first and the third is the arithmetic: operations over the speed of a large matrix product on the same machine. A
line of the log per size; sizes that it holds are not repeated. Needs torch and numpy only; SOAP its library too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cegm.baselines import build_optimizer
from model import LanguageModel

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("adamw", {}),
    "muon": ("muon", {}),
    "normuon": ("normuon", {}),
    "newton_muon": ("newton_muon", {}),
    "soap": ("soap", {}),
    "shampoo": ("shampoo", {}),
    "cegm": ("cegm", {}),
    "cegm lite": ("cegm", {"preset": "lite"}),
}
POLAR_ITERATIONS = 5


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak(device: str, size: int = 1024, seconds: float = 0.5) -> float:
    """Operations per second of a float32 matrix product."""
    a = torch.randn(size, size, device=device)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ a
        synchronize(device)
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - start)


def operations(model: LanguageModel, tokens: int, length: int, matrices: list[torch.Tensor]) -> dict[str, float]:
    """Of forward and backward pass (2 + 4 per weight and token, attention included), and of the polar factors."""
    weights = sum(p.numel() for p in model.parameters())  # the embedding counts as the head
    hidden, layers = model.embed.weight.shape[1], len(model.blocks)
    attention = 3 * 4 * tokens * length * hidden * layers / 2  # causal
    polar = 0.0
    for matrix in matrices:
        short, long = sorted(matrix.shape)
        polar += POLAR_ITERATIONS * (2 * short**2 * long * 2 + 2 * short**3)
    return {"forward_backward": 6.0 * weights * tokens + attention, "step": polar}


class Timed:
    """One method: a model of its own and the seconds of both halves of each of its steps."""

    def __init__(self, name: str, hidden: int, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        method, options = METHODS[name]
        self.model = LanguageModel(hidden=hidden, layers=arguments.layers, heads=max(1, hidden // 64)).to(
            arguments.device
        )
        self.optimizer = build_optimizer(method, self.model, lr=1e-4, **options)
        self.device = arguments.device
        self.matrices = [p for g in self.optimizer.param_groups if g["role"] == "matrix" for p in g["params"]]
        self.blocks: list[list[tuple[float, float, bool]]] = []  # forward-backward, step, refreshed

    def block(self, tokens: torch.Tensor, steps: int) -> list[tuple[float, float, bool]]:
        """Takes `steps` whole training steps."""
        return [self._step(tokens) for _ in range(steps)]

    def _step(self, tokens: torch.Tensor) -> tuple[float, float, bool]:
        refreshed = bool(getattr(self.optimizer, "refreshing", False))
        start = time.perf_counter()
        self.model(tokens).backward()
        synchronize(self.device)
        middle = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        synchronize(self.device)
        return middle - start, time.perf_counter() - middle, refreshed

    def seconds(self) -> np.ndarray:
        """Per step, the mean of each round, (rounds,)."""
        return np.array([np.mean([a + b for a, b, _ in block]) for block in self.blocks])

    def parts(self) -> dict[str, float]:
        """Seconds of each part: medians, and what happens on refreshes only per refresh; means where refreshes do not show."""
        steps = [step for block in self.blocks for step in block]
        plain = np.array([(a, b) for a, b, refreshed in steps if not refreshed])  # (steps, 2)
        looked = np.array([(a, b) for a, b, refreshed in steps if refreshed])
        if not len(looked):
            return dict(zip(("forward_backward", "step"), map(float, plain.mean(axis=0)), strict=True))
        usual = np.median(plain if len(plain) else looked, axis=0)
        extra = np.median(looked, axis=0) - usual if len(plain) else np.zeros(2)
        names = ("forward_backward", "step", "capture", "refresh")
        return dict(zip(names, map(float, [*usual, *extra]), strict=True))

    def state_bytes(self) -> float:
        """Of the matrices' optimizer state, per matrix weight."""
        values = torch.utils._pytree.tree_leaves([self.optimizer.state.get(p, {}) for p in self.matrices])
        total = sum(v.numel() * v.element_size() for v in values if torch.is_tensor(v))
        return total / sum(p.numel() for p in self.matrices)


def ratio(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> list[float]:
    """[ratio of means, low, high] of block times, (rounds,) each; both methods are resampled by the same rounds."""
    picks = rng.integers(0, len(first), (4000, len(first)))
    resampled = np.mean(first[picks], axis=1) / np.mean(second[picks], axis=1)
    return [float(np.mean(first) / np.mean(second)), *map(float, np.quantile(resampled, [0.025, 0.975]))]


def measure(arguments: argparse.Namespace, hidden: int, tokens: int) -> dict[str, Any]:
    """The line of one size."""
    names = arguments.methods.split(",")
    rows = max(1, tokens // arguments.length)
    batch = torch.randint(0, 256, (rows, arguments.length), device=arguments.device)
    timed = {name: Timed(name, hidden, arguments) for name in names}
    for turn in range(-1, arguments.rounds):  # one round of warm-up
        for name in names if turn % 2 == 0 else reversed(names):
            block = timed[name].block(batch, arguments.block)
            if turn >= 0:
                timed[name].blocks.append(block)
    speed, base, rng = peak(arguments.device), timed["muon"], np.random.default_rng(0)
    work = operations(base.model, rows * arguments.length, arguments.length, base.matrices)
    methods = {
        name: {
            "seconds_per_step": float(np.mean(each.seconds())),
            "ratio_to_muon": ratio(each.seconds(), base.seconds(), rng),
            "parts": each.parts(),
            "state_bytes_per_matrix_weight": each.state_bytes(),
            "rounds": each.seconds().tolist(),
        }
        for name, each in timed.items()
    }
    return {
        "hidden": hidden,
        "tokens": rows * arguments.length,
        "length": arguments.length,
        "layers": arguments.layers,
        "block_steps": arguments.block,
        "threads": arguments.threads,
        "device": arguments.device,
        "hardware": f"{os.cpu_count()} cores, CPU" if arguments.device == "cpu" else torch.cuda.get_device_name(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "weights": sum(p.numel() for p in base.model.parameters()),
        "peak_operations_per_second": speed,
        "floor_seconds": {part: count / speed for part, count in work.items()},
        "methods": methods,
    }


def show(line: dict[str, Any]) -> None:
    """The table of one size, milliseconds."""
    print(f"hidden {line['hidden']}, {line['tokens']} tokens, {line['layers']} layers, {line['weights']:,} weights")
    columns = ("forward-backward", "step", "capture", "refresh", "whole step", "whole step / Muon's", "state B/weight")
    print(f"{'':12}" + "".join(f"{column:>22}" for column in columns))
    for name, found in line["methods"].items():
        names = ("forward_backward", "step", "capture", "refresh")
        parts = [f"{1e3 * found['parts'][p]:.1f}" if p in found["parts"] else "-" for p in names]
        middle, low, high = found["ratio_to_muon"]
        whole = [f"{1e3 * found['seconds_per_step']:.1f}", f"{middle:.3f} [{low:.3f}, {high:.3f}]"]
        cells = [*parts, *whole, f"{found['state_bytes_per_matrix_weight']:.2f}"]
        print(f"{name:12}" + "".join(f"{cell:>22}" for cell in cells))
    floor = line["floor_seconds"]
    print(f"{'floor (Muon)':12}{1e3 * floor['forward_backward']:22.1f}{1e3 * floor['step']:22.1f}\n", flush=True)


def key(size: dict[str, Any], methods: list[str]) -> tuple[Any, ...]:
    """What makes two measurements the same."""
    return tuple(size[name] for name in ("hidden", "tokens", "length", "layers", "threads", "device")), tuple(methods)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", default="128", help="widths, comma-separated")
    parser.add_argument("--tokens", default="2048", help="tokens per batch, comma-separated")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=16, help="blocks per method; 16 blocks of 25 steps are 400 steps")
    parser.add_argument("--block", type=int, default=25, help="steps between two refreshes of the recommended preset")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.touch()
    done = [json.loads(line) for line in arguments.output.read_text().splitlines()]
    if "muon" not in arguments.methods.split(","):
        raise SystemExit("every cost is told against Muon's; add muon to --methods")
    sizes = {key(line, list(line["methods"])) for line in done}
    widths, batches = ([int(part) for part in text.split(",")] for text in (arguments.hidden, arguments.tokens))
    for hidden, tokens in itertools.product(widths, batches):
        size = {**vars(arguments), "hidden": hidden, "tokens": max(1, tokens // arguments.length) * arguments.length}
        if key(size, arguments.methods.split(",")) not in sizes:
            line = measure(arguments, hidden, tokens)
            show(line)
            with arguments.output.open("a") as log:
                log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

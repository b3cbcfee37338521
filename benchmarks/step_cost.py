"""What a whole training step costs with each method, where the time goes, and how far that is from the arithmetic.

    python benchmarks/step_cost.py --hidden 128,256 --tokens 2048 --output benchmarks/results/step_cost/cpu.jsonl

Methods take turns block by block, A B C C B A, each with a model of its own; 16 blocks of 25 steps are a whole number of
every method's refresh intervals (10, 16, 25, 50). Reported per method: the mean step, its ratio to Muon's with a 95 % interval
from resampling the rounds, and for CEGM's family the parts of it: forward-backward, capture (what a recording step adds
to that), step, refresh (what a refresh adds to that); for other methods a refresh is inside the step. The floor below
each part of Muon and CEGM is the arithmetic: operations over the speed of a large matrix product on the same machine. A
line of the log per size; sizes that it holds are not repeated. Widths, batches, lengths and layers may be lists, for
`benchmarks/growth.py`. Needs torch and numpy only; SOAP its library too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cegm.lab.baselines import build_optimizer
from cegm.lab.forecast.operations import counted, normalize_operations, power_operations
from cegm.mapping.normalize import polar_dtype
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
FLOORED = ("muon", "cegm", "cegm lite")
"""Methods whose operations are counted."""

AXES = ("hidden", "tokens", "length", "layers")


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def tensor_bytes(held: Any) -> int:
    """Of all tensors in nested lists and dictionaries."""
    tensors = filter(torch.is_tensor, torch.utils._pytree.tree_leaves(held))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak(device: str, size: int = 1024, seconds: float = 0.5) -> float:
    """Operations per second of a float32 matrix product."""
    a = torch.randn(size, size, device=device)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ a
        synchronize(device)
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - start)


def method_operations(optimizer: torch.optim.Optimizer, tokens: int) -> dict[str, float]:
    """Of CEGM and its relatives, per step: polar factors and maps; capture and refresh, each once per refresh."""
    counts = {"step": 0.0, "capture": 0.0, "refresh": 0.0}
    pairs = [(g, p) for g in optimizer.param_groups if g["role"] == "matrix" for p in g["params"]]
    for group, parameter in pairs:
        counts["step"] += normalize_operations(
            *parameter.shape, group["normalize"], polar_dtype(group, parameter.device)
        )
        for key, power, side in (("demand_map", "gradient_power", 0), ("context_map", "power", 1)):
            if key in optimizer.state[parameter]:
                features, width = parameter.shape[side], optimizer.state[parameter][key].shape[-1]
                counts["step"] += 2.0 * parameter.numel() * width
                counts["capture"] += 2.0 * tokens * features * width
                counts["refresh"] += features / width * power_operations(width, group[power], parameter.device.type)
    return counts


class Timed:
    """One method: a model of its own and the seconds of both halves of each of its steps."""

    def __init__(self, name: str, hidden: int, layers: int, device: str, autocast: bool = False) -> None:
        torch.manual_seed(0)
        method, options = METHODS[name]
        with torch.device(device):
            self.model = LanguageModel(hidden=hidden, layers=layers, heads=max(1, hidden // 64))
        self.optimizer = build_optimizer(method, self.model, lr=1e-4, **options)
        self.device, self.autocast = device, autocast
        self.matrices = [p for g in self.optimizer.param_groups if g["role"] == "matrix" for p in g["params"]]
        self.blocks: list[list[tuple[float, float, bool]]] = []  # forward-backward, step, refreshed
        self.passing_bytes = 0

    def block(self, tokens: torch.Tensor, steps: int) -> list[tuple[float, float, bool]]:
        """Takes `steps` whole training steps."""
        if self.device != "cuda":
            return [self._step(tokens) for _ in range(steps)]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        block = [self._step(tokens) for _ in range(steps)]
        self.passing_bytes = torch.cuda.max_memory_allocated() - before
        return block

    def passes(self, tokens: torch.Tensor) -> None:
        """Forward and backward."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            loss = self.model(tokens)
        loss.backward()

    def _step(self, tokens: torch.Tensor) -> tuple[float, float, bool]:
        refreshed = bool(getattr(self.optimizer, "refreshing", False))
        start = time.perf_counter()
        self.passes(tokens)
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
        held = tensor_bytes([self.optimizer.state.get(p, {}) for p in self.matrices])
        return held / sum(p.numel() for p in self.matrices)

    def peak_bytes(self) -> int | None:
        """The most that weights, state and what comes and goes in a step take together; None where nobody counts."""
        if self.device != "cuda":
            return None
        return tensor_bytes([list(self.model.parameters()), dict(self.optimizer.state)]) + self.passing_bytes


def ratio(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> list[float]:
    """[ratio of means, low, high] of block times, (rounds,) each; both methods are resampled by the same rounds."""
    picks = rng.integers(0, len(first), (4000, len(first)))
    resampled = np.mean(first[picks], axis=1) / np.mean(second[picks], axis=1)
    return [float(np.mean(first) / np.mean(second)), *map(float, np.quantile(resampled, [0.025, 0.975]))]


def measure(arguments: argparse.Namespace, size: dict[str, int]) -> dict[str, Any]:
    """The line of one size: hidden, tokens, length, layers."""
    names = arguments.methods.split(",")
    tokens, length = size["tokens"], size["length"]
    batch = torch.randint(0, 256, (tokens // length, length), device=arguments.device)
    timed = {name: Timed(name, size["hidden"], size["layers"], arguments.device, arguments.autocast) for name in names}
    end = time.perf_counter() + arguments.seconds
    for turn in range(-1, arguments.rounds):  # one round of warm-up
        if turn > 0 and time.perf_counter() > end:
            break
        for name in names if turn % 2 == 0 else reversed(names):
            block = timed[name].block(batch, arguments.block)
            if turn >= 0:
                timed[name].blocks.append(block)
    speed, base, rng = peak(arguments.device), timed["muon"], np.random.default_rng(0)
    forward_backward = counted(lambda: base.passes(batch))
    methods = {
        name: {
            "seconds_per_step": float(np.mean(each.seconds())),
            "ratio_to_muon": ratio(each.seconds(), base.seconds(), rng),
            "parts": each.parts(),
            "state_bytes_per_matrix_weight": each.state_bytes(),
            "peak_bytes": each.peak_bytes(),
            "rounds": each.seconds().tolist(),
            "refresh_every": each.optimizer.param_groups[0].get("refresh_every"),
            "floor_operations": {"forward_backward": forward_backward} | method_operations(each.optimizer, tokens)
            if name in FLOORED
            else None,
        }
        for name, each in timed.items()
    }
    return {
        **size,
        "block_steps": arguments.block,
        "threads": arguments.threads,
        "device": arguments.device,
        "autocast": arguments.autocast,
        "hardware": f"{os.cpu_count()} cores, CPU" if arguments.device == "cpu" else torch.cuda.get_device_name(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "weights": sum(p.numel() for p in base.model.parameters()),
        "peak_operations_per_second": speed,
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
        if found["floor_operations"]:
            speed = line["peak_operations_per_second"]
            floors = [f"{1e3 * found['floor_operations'][p] / speed:.1f}" for p in names]
            print(f"{'   floor':12}" + "".join(f"{cell:>22}" for cell in floors))
    print(flush=True)


def key(line: dict[str, Any], methods: list[str]) -> tuple[Any, ...]:
    """What makes two measurements the same."""
    return (*(line[name] for name in (*AXES, "threads", "device")), line.get("autocast", False)), tuple(methods)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", default="128", help="widths, comma-separated")
    parser.add_argument("--tokens", default="2048", help="tokens per batch, comma-separated")
    parser.add_argument("--length", default="256", help="tokens per row, comma-separated")
    parser.add_argument("--layers", default="4", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=16, help="blocks per method; 16 blocks of 25 steps are 400 steps")
    parser.add_argument("--block", type=int, default=25, help="steps between two refreshes of the recommended preset")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", action="store_true", help="forward passes in bfloat16")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after so many per size no round begins")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.touch()
    done = [json.loads(line) for line in arguments.output.read_text(encoding="utf-8").splitlines()]
    if "muon" not in arguments.methods.split(","):
        raise SystemExit("every cost is told against Muon's; add muon to --methods")
    sizes = {key(line, list(line["methods"])) for line in done}
    lists = [[int(part) for part in getattr(arguments, axis).split(",")] for axis in AXES]
    for values in itertools.product(*lists):
        size = dict(zip(AXES, values, strict=True))
        size["tokens"] = max(1, size["tokens"] // size["length"]) * size["length"]
        if key({**vars(arguments), **size}, arguments.methods.split(",")) not in sizes:
            sizes.add(key({**vars(arguments), **size}, arguments.methods.split(",")))
            line = measure(arguments, size)
            show(line)
            with arguments.output.open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

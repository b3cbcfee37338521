"""What a whole training step costs with each method, interleaved on one machine.

    python benchmarks/step_cost.py --hidden 128 --output benchmarks/results/step_cost/cpu.json

A block is as many steps as CEGM has between two refreshes, so every block of CEGM holds exactly one refresh; methods
take turns block by block, A B C C B A, each with a model of its own. Reported: the median block divided by its steps,
and its ratio to Muon's, with a 95 % interval from resampling the rounds. Needs torch and numpy only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

from cegm.baselines import build_optimizer
from model import LanguageModel

METHODS = {
    "adamw": ("adamw", {}),
    "muon": ("muon", {}),
    "cegm": ("cegm", {}),
    "cegm lite": ("cegm", {"preset": "lite"}),
}


def state_bytes(optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor]) -> int:
    values = [v for p in parameters for v in optimizer.state.get(p, {}).values()]
    return sum(v.numel() * v.element_size() for v in values if torch.is_tensor(v))


def block_seconds(model, optimizer, tokens: torch.Tensor, steps: int) -> list[float]:
    """Seconds of each of `steps` whole training steps."""
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        model(tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if tokens.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


def ratio(first: np.ndarray, second: np.ndarray, rounds: int, rng: np.random.Generator) -> list[float]:
    """[ratio of medians, low, high] of block times, (rounds,) each; both methods are resampled by the same rounds."""
    picks = rng.integers(0, rounds, (4000, rounds))
    resampled = np.median(first[picks], axis=1) / np.median(second[picks], axis=1)
    return [float(np.median(first) / np.median(second)), *map(float, np.quantile(resampled, [0.025, 0.975]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9, help="blocks per method; 9 blocks of 25 steps are 225 steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = arguments.methods.split(",")
    tokens = torch.randint(0, 256, (arguments.rows, arguments.length), device=arguments.device)
    models, optimizers = {}, {}
    for name in names:
        torch.manual_seed(0)
        models[name] = LanguageModel(hidden=arguments.hidden, layers=arguments.layers).to(arguments.device)
        method, options = METHODS[name]
        optimizers[name] = build_optimizer(method, models[name], lr=1e-4, **options)
    cycle = max(
        group.get("refresh_every", 1) for name in names if name == "cegm" for group in optimizers[name].param_groups
    )
    steps: dict[str, list[list[float]]] = {name: [] for name in names}
    for turn in range(-2, arguments.rounds):  # two rounds of warm-up
        for name in names if turn % 2 == 0 else reversed(names):
            seconds = block_seconds(models[name], optimizers[name], tokens, cycle)
            if turn >= 0:
                steps[name].append(seconds)
    report(arguments, names, models, optimizers, steps, cycle)


def report(arguments, names, models, optimizers, steps, cycle) -> None:
    rng = np.random.default_rng(0)
    blocks = {name: np.asarray(steps[name]).mean(axis=1) for name in names}  # (rounds,) seconds per step
    singles = {name: np.asarray(steps[name]).reshape(-1) for name in names}
    result = {
        "settings": {k: v for k, v in vars(arguments).items() if k != "output"},
        "block_steps": cycle,
        "hardware": f"{os.cpu_count()} cores, CPU" if arguments.device == "cpu" else torch.cuda.get_device_name(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "weights": sum(p.numel() for p in models[names[0]].parameters()),
        "methods": {},
    }
    print(
        f"{'method':10} {'ms/step':>8} {'block ratio to muon':>26} {'single-step ratio':>18} {'state bytes/weight':>19}"
    )
    for name in names:
        matrices = [p for g in optimizers[name].param_groups if g["role"] == "matrix" for p in g["params"]]
        bytes_ = state_bytes(optimizers[name], matrices) / sum(p.numel() for p in matrices)
        against = ratio(blocks[name], blocks["muon"], arguments.rounds, rng)
        single = float(np.median(singles[name]) / np.median(singles["muon"]))
        result["methods"][name] = {
            "seconds_per_step": float(np.median(blocks[name])),
            "ratio_to_muon": against,
            "single_step_ratio_to_muon": single,
            "state_bytes_per_matrix_weight": bytes_,
            "steps": steps[name],
        }
        shown = f"{against[0]:.3f} [{against[1]:.3f}, {against[2]:.3f}]"
        print(f"{name:10} {1e3 * np.median(blocks[name]):8.1f} {shown:>26} {single:18.3f} {bytes_:19.2f}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

"""What `cegm plan` says beside what is measured: bytes of state, peak memory, and the time of a step over AdamW's.

    python benchmarks/plan_check.py --output benchmarks/results/plan/cpu.jsonl

State has to be equal to the byte. The peak is that of tensors, as torch's own allocator counts it. Times are those of the
processor, one thread, so that other programs on the machine count little: blocks of 25 steps (one refresh of the preset)
in turns A B C C B A, medians over blocks. The plan is calibrated once: peak of a float32 product and memory bandwidth are
measured, and the utilisation of the passes is the one that makes AdamW's first shape right. Everything after that is
prediction. The log holds what was measured, a line per shape and method; the plan is made anew whenever it is shown.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

from cegm.columns import aligned
from cegm.lab.compare.learner import Timed, peak_bytes
from cegm.lab.forecast.forecast import Estimate, forecast
from cegm.lab.forecast.plan_config import PlanConfig
from cegm.lab.train.meter import tensor_bytes
from cegm.lab.train.model import load_model, load_tokenizer
from cegm.lab.train.run_config import RunConfig

METHODS = ("adamw", "muon", "normuon", "cegm")
SHAPES = (("tiny", 2, 128), ("tiny", 8, 128), ("small", 1, 64))
"""Model, rows, tokens; the first calibrates."""

BLOCK = 25


def product_rate(size: int = 1024, seconds: float = 2.0) -> float:
    """Operations per second of a float32 product, processor time."""
    a = torch.randn(size, size)
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        a @ a
        count += 1
    return 2 * size**3 * count / (time.process_time() - start)


def copy_rate(megabytes: int = 256, seconds: float = 1.0) -> float:
    """Bytes per second read and written by a copy, processor time."""
    a = torch.zeros(megabytes * 2**18)
    b = torch.empty_like(a)
    b.copy_(a)
    count, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        b.copy_(a)
        count += 1
    return 2 * 4 * a.numel() * count / (time.process_time() - start)


def machine_file(folder: Path, flops: float, bandwidth: float) -> Path:
    """A file of one machine: this core."""
    entry = {
        "kind": "cpu", "devices": 1, "memory": 8e9, "float32_flops": flops, "bfloat16_flops": None,
        "memory_bandwidth": bandwidth, "node_bandwidth": None, "network_bandwidth": None, "price_per_device_hour": None,
    }  # fmt: skip
    path = folder / "machine.yaml"
    path.write_text(yaml.safe_dump({"core": entry}), encoding="utf-8")
    return path


def planned(machines: Path, shape: tuple[str, int, int], utilisation: float) -> dict[str, Estimate]:
    """By method. Products of updates are taken at the measured peak, which is that of a product."""
    name, rows, length = shape
    shared = {"model_name_or_path": name, "per_device_train_batch_size": rows, "max_length": length}
    config = PlanConfig(
        ",".join(METHODS), "core", str(machines), utilisation=utilisation, update_utilisation=1.0, shared=shared
    )
    return {estimate.run.method: estimate for estimate in forecast(config).estimates}


def warmed(run: RunConfig) -> Timed:
    """A model after two steps, of which the first has seen contexts."""
    tokenizer = load_tokenizer(run)
    tokens = torch.randint(
        len(tokenizer), (run.per_device_train_batch_size, run.max_length), generator=torch.Generator().manual_seed(0)
    )
    timed = Timed(run, load_model(run, tokenizer), tokens)
    timed.block(2)
    return timed


def measure(shape: tuple[str, int, int], rounds: int) -> dict[str, dict[str, Any]]:
    """By method: `state` and `peak`, bytes, and `seconds` per step of each block."""
    name, rows, length = shape
    found: dict[str, dict[str, Any]] = {}
    timed: dict[str, Timed] = {}
    for method in METHODS:
        run = RunConfig(name, method=method, per_device_train_batch_size=rows, max_length=length, learning_rate=1e-4)
        timed[method], peak = peak_bytes(partial(warmed, run))
        state = tensor_bytes(list(timed[method].optimizer.state.values()))
        found[method] = {"state": state, "peak": peak, "seconds": []}
    for turn in range(2 * rounds):
        for method in METHODS if turn % 2 == 0 else reversed(METHODS):
            start = time.process_time()
            timed[method].block(BLOCK)
            found[method]["seconds"].append((time.process_time() - start) / BLOCK)
    return found


def compared(log: Sequence[dict[str, Any]]) -> tuple[float, list[dict[str, Any]]]:
    """The one utilisation, and per line of a log what was measured and what the plan says: (measured, planned) pairs."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        machines = machine_file(Path(folder), log[0]["float32_flops"], log[0]["memory_bandwidth"])
        utilisation = 0.0
        for shape in dict.fromkeys((line["model"], line["rows"], line["tokens"]) for line in log):
            own = {x["method"]: x for x in log if (x["model"], x["rows"], x["tokens"]) == shape}
            if not utilisation:
                whole = planned(machines, shape, 1.0)["adamw"].seconds
                utilisation = min(1.0, whole.passes / (median(own["adamw"]["seconds"]) - whole.update))
            plans = planned(machines, shape, utilisation)
            for method, line in own.items():
                over = [a / b for a, b in zip(line["seconds"], own["adamw"]["seconds"], strict=True)]
                memory, seconds = plans[method].memory, plans[method].seconds.step
                rows.append(
                    {
                        "shape": shape,
                        "method": method,
                        "state": (line["state"], memory.state),
                        "peak": (line["peak"], memory.peak),
                        "seconds": (median(line["seconds"]), seconds),
                        "ratio": (median(over), seconds / plans["adamw"].seconds.step),
                    }
                )
    return utilisation, rows


def table(log: Sequence[dict[str, Any]]) -> str:
    """Measured beside planned, a line per shape and method."""
    utilisation, rows = compared(log)
    pairs = ("state, bytes", "peak, MB", "ms a step", "over AdamW's")
    cells = [["model", "batch", "method", *(word for pair in pairs for word in (pair, "planned"))]]
    for row in rows:
        name, count, length = row["shape"]
        numbers = [
            f"{value / scale:{form}}"
            for key, scale, form in (
                ("state", 1, ",.0f"),
                ("peak", 1e6, ".1f"),
                ("seconds", 1e-3, ".0f"),
                ("ratio", 1, ".2f"),
            )
            for value in row[key]
        ]
        cells.append([name, f"{count} x {length}", row["method"], *numbers])
    return "\n".join(
        [*aligned(cells, {0, 1, 2}), f"utilisation of the passes: {utilisation:.2f}, from AdamW's first shape"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="each has two blocks of 25 steps per method")
    parser.add_argument("--show", action="store_true", help="compare a log with the plan of today, measure nothing")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.show:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        head = {
            "float32_flops": product_rate(),
            "memory_bandwidth": copy_rate(),
            "processor": str(torch.cpu.get_capabilities().get("cpu_name", platform.machine())),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }
        with arguments.output.open("w", encoding="utf-8") as log:
            for shape in SHAPES:
                names = dict(zip(("model", "rows", "tokens"), shape, strict=True))
                for method, own in measure(shape, arguments.rounds).items():
                    log.write(json.dumps({**names, "method": method, **own, **head}) + "\n")
                log.flush()
    print(table([json.loads(line) for line in arguments.output.read_text(encoding="utf-8").splitlines()]))


if __name__ == "__main__":
    main()

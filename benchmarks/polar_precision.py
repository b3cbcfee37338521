"""What the polar factor costs in bfloat16 and in float32 on this processor, which is how `auto` was settled.

    python benchmarks/polar_precision.py --output benchmarks/results/step_cost/polar_precision.json

One thread, precisions in turns; a ratio is the median over turns of bfloat16's seconds over float32's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

from cegm.mapping.normalize import multiplies_bfloat16, polar

SHAPES = ((64, 64), (128, 128), (128, 384), (256, 256), (256, 768), (512, 512), (1024, 1024))
PRECISIONS = (torch.bfloat16, torch.float32)
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "arm_bf16", "bf16")


def seconds(matrix: torch.Tensor, dtype: torch.dtype, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        polar(matrix, 1e-7, dtype)
    return (time.perf_counter() - start) / repeats


def compared(outputs: int, inputs: int, turns: int) -> dict[str, object]:
    """A shape, with seconds of every turn by precision and their ratio."""
    matrix = torch.randn(1, outputs, inputs, generator=torch.Generator().manual_seed(0))
    for dtype in PRECISIONS:
        seconds(matrix, dtype, 2)
    repeats = max(1, int(0.1 / seconds(matrix, torch.float32, 2)))
    found: dict[str, list[float]] = {str(dtype).removeprefix("torch."): [] for dtype in PRECISIONS}
    for turn in range(turns):
        for dtype in PRECISIONS if turn % 2 == 0 else reversed(PRECISIONS):
            found[str(dtype).removeprefix("torch.")].append(seconds(matrix, dtype, repeats))
    ratios = [low / full for low, full in zip(found["bfloat16"], found["float32"], strict=True)]
    return {"shape": [outputs, inputs], "ratio": median(ratios), "seconds": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known = torch.cpu.get_capabilities()
    told = {
        "instructions": [name for name in INSTRUCTIONS if known.get(name)],
        "auto_is_bfloat16": multiplies_bfloat16(),
    }
    lines = []
    for shape in SHAPES:
        lines.append(compared(*shape, arguments.turns))
        print(f"{shape[0]:>5} x {shape[1]:<5} bfloat16 takes {lines[-1]['ratio']:.2f} times as long")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({**told, "shapes": lines}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

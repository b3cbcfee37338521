"""Reads the log of pretrain.py over momentum kernels, whose arms are called `method kernel coefficient`."""

from __future__ import annotations

from typing import Any

from logs import MINUS, lines, markdown


def momentum_kernels() -> str:
    """The table of docs/results.md."""
    return table(lines("kernel/novels.jsonl")[1:])


def table(log: list[dict[str, Any]]) -> str:
    """A row per method and kernel: the final loss on each seed, and by how much it is off that of `ema`."""
    last, seeds = max(line["step"] for line in log), sorted({line["seed"] for line in log})
    losses = {(*line["method"].split()[:2], line["seed"]): line["validation"] for line in log if line["step"] == last}
    rows = []
    for method, kernel in dict.fromkeys((method, kernel) for method, kernel, _ in losses):
        mine = [losses[method, kernel, seed] for seed in seeds]
        gaps = [each - losses[method, "ema", seed] for each, seed in zip(mine, seeds, strict=True)]
        shown = [f"{gap:+.3f}".replace("-", MINUS) if kernel != "ema" else "" for gap in gaps]
        rows.append([f"`{method}`", f"`{kernel}`", *(f"{loss:.3f}" for loss in mine), *shown])
    head = [f"loss, seed {seed}" for seed in seeds] + [f"minus `ema`'s, seed {seed}" for seed in seeds]
    return markdown(["method", "`momentum_kernel`", *head], rows)

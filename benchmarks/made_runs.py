"""Run folders with the files that `cegm train` and `cegm compare` write, made without training: for what looks at runs while they go."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cegm.lab.compare.plan import run_name
from cegm.lab.records import Final, Train, Validation, line
from cegm.lab.strict import yaml_text
from cegm.lab.train.audit import AuditLog

PARTS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
TOKENS = 2048


def layer_names(count: int) -> list[str]:
    """So many names, seven to a block."""
    return [f"model.layers.{place // 7}.{PARTS[place % 7]}" for place in range(count)]


def train_line(step: int, steps: int, names: list[str], gain: float = 0.0, seed: int = 0, **changes: Any) -> str:
    """The line of a step."""
    draw, share = random.Random(step * 1000 + seed), step / max(1, steps)
    noise = random.Random(step).gauss(0, 0.05)
    decay = min(1.0, step / (0.05 * steps)) * (0.1 + 0.9 * math.cos(math.pi / 2 * share))
    seconds = 0.5 + 0.05 * gain
    facts: dict[str, Any] = {
        "loss": 2.3 + 4.0 * math.exp(-5 * share) + noise - gain * min(1.0, 3 * share),
        "lr_matrix": 0.01 * decay,
        "lr_adamw": 0.003 * decay,
        "gradient_norm": 1.1 + 2 * math.exp(-8 * share) + abs(draw.gauss(0, 0.1)),
        "clip_factor": min(1.0, 1 / (1.1 + 2 * math.exp(-8 * share))),
        "clipped_share": 1.0,
        "spike_score": draw.gauss(0, 1),
        "spikes": 0,
        "skipped_steps": 0,
        "tokens_per_second": TOKENS / seconds,
        "seconds": step * seconds,
        "forward_backward_seconds": 0.42 + draw.gauss(0, 0.005),
        "optimizer_seconds": 0.08 + 0.05 * gain,
        "memory_bytes": 640 * 2**20,
        "batch_hash": f"{step:064x}",
    }
    if names:
        facts["layers"] = {name: _layer(place / len(names), share, draw) for place, name in enumerate(names)}
    return line(Train(step=step, tokens=step * TOKENS, **{**facts, **changes})) + "\n"


def _layer(depth: float, share: float, draw: random.Random) -> dict[str, float]:
    raw = 4 + 20 * share * (1 + math.sin(6 * depth)) + draw.random()
    return {
        "gradient_norm": 0.1 + 0.05 * draw.random(),
        "update_to_weight": 0.004 * (1.05 - share) * (1 + depth) * (0.9 + 0.2 * draw.random()),
        "context_rank": 12 + 60 * share * (1 - 0.6 * depth) + draw.random(),
        "gradient_context_rank": 20 + 5 * depth,
        "cosine": 0.95 - 0.35 * share * depth + 0.02 * draw.random(),
        "entanglement": 0.05,
        "home": 0.3 + 0.4 * depth,
        "gradient_rank": raw,
        "mapped_rank": 2 * raw,
        "update_rank": 90 + 30 * depth,
    }


def lines_of(steps: int, until: int, every: int, layers: list[str], gain: float = 0.0, seed: int = 0) -> Iterator[str]:
    """Lines up to a step, with a validation at every tenth of them, and the final one where that is the end."""
    for step in range(0, until + 1, every):
        if step:
            yield train_line(step, steps, layers, gain, seed)
        if step % (every * 10) == 0:
            yield validation_line(step, steps, gain)
    if until == steps:
        loss = 2.3 - gain
        yield (
            line(Final(steps=steps, tokens=steps * TOKENS, seconds=steps * 0.5, loss=loss, bits_per_byte=loss * 0.31))
            + "\n"
        )


def validation_line(step: int, steps: int, gain: float = 0.0) -> str:
    """The line of a validation."""
    share = step / steps
    loss = 2.35 + 4.0 * math.exp(-5 * share) - gain * min(1.0, 3 * share)
    facts: dict[str, Any] = {"seconds": step * 0.5, "loss": loss, "bits_per_byte": loss * 0.31}
    return line(Validation(step=step, tokens=step * TOKENS, **facts)) + "\n"


def make_run(folder: Path, config: dict[str, Any], lines: Iterator[str]) -> Path:
    """A run folder with configuration, lines, and a log that begins."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        yaml_text({"config": config, "tokens": {"train": TOKENS * config["max_steps"]}}), encoding="utf-8"
    )
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    AuditLog(folder / "audit.jsonl").record("start", method=config["method"], seed=config["seed"], config="0" * 64)
    return folder


def planned(method: str, seed: int, steps: int, **changes: Any) -> dict[str, Any]:
    """A line of `plan.jsonl`."""
    config = {"method": method, "seed": seed, "max_steps": steps, "num_train_epochs": None, "learning_rate": 0.01}
    return {
        "id": f"{method.encode().hex():.8}{seed:04d}",
        "method": method,
        "seed": seed,
        "role": "main",
        "config": config,
        **changes,
    }


def make_comparison(folder: Path, steps: int, until: dict[tuple[str, int], int], every: int, layers: list[str]) -> Path:
    """A comparison whose runs, by method and seed, are so many steps far; those at their end have a result."""
    gains = {"adamw": 0.0, "muon": 0.12, "cegm": 0.17}
    plan = [planned(method, seed, steps) for method, seed in until]
    folder.mkdir(parents=True)
    (folder / "plan.jsonl").write_text("".join(json.dumps(each) + "\n" for each in plan), encoding="utf-8")
    for each, ((method, seed), last) in zip(plan, until.items(), strict=True):
        if not last:
            continue
        place = folder / "runs" / run_name(method, seed, "main", each["id"])
        own = layers if method != "adamw" else []
        make_run(place, each["config"], lines_of(steps, last, every, own, gains.get(method, 0.0), seed))
        if last == steps:
            final = msgspec.json.decode((place / "metrics.jsonl").read_bytes().splitlines()[-1])
            result = {"status": "finished", "error": None, "final_loss": final["loss"], **final, "kind": "result"}
            (place / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder

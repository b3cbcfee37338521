"""Synthetic comparison and run folders that follow the schemas, so that the report is tested without training anything."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from cegm.lab.compare.verdict import write_verdict

LENGTHS = (512, 1024, 2048, 4096, 8192)
LAYERS = [
    f"model.layers.{block}.{name}"
    for block in range(4)
    for name in (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    )
]
GAIN = {"adamw": 0.0, "muon": 0.14, "cegm": 0.19}
RECALL = {"adamw": 0.0, "muon": 0.06, "cegm": 0.10}
STEP_SECONDS = {"adamw": 0.180, "muon": 0.192, "cegm": 0.203}
STATE = {"adamw": 8.0, "muon": 4.9, "cegm": 6.2}
PARAMETERS = 1_310_720
TOKENS_PER_STEP = 2048


@dataclass
class Made:
    """What to make.

    Attributes:
        methods: Methods of the plan.
        seeds: Number of seeds.
        steps: Steps of a main run.
        failed: (method, seed, role) of runs that failed.
        error: Their error.
        data: Name of the data in the configuration.
        layers: Names of the layers with diagnostics.
    """

    methods: tuple[str, ...] = ("adamw", "muon", "cegm")
    seeds: int = 3
    steps: int = 400
    failed: frozenset[tuple[str, int, str]] = frozenset({("muon", 2, "equal_seconds")})
    error: str = "loss is NaN at step 71, batch 71, first bad layer model.layers.2.mlp.down_proj"
    data: str = "world"
    layers: list[str] = field(default_factory=lambda: list(LAYERS))


def make_comparison(path: Path, made: Made) -> Path:
    """Writes plan, run folders, parquet files and verdict."""
    plan, results, items = [], [], []
    for seed in range(made.seeds):
        for method in made.methods:
            plan.append(_planned(method, seed, "main", made.steps, made))
    for seed in range(made.seeds):
        for method in made.methods:
            if method != "cegm" and "cegm" in made.methods:
                steps = round(made.steps * STEP_SECONDS["cegm"] / STEP_SECONDS.get(method, 0.2))
                plan.append(_planned(method, seed, "equal_seconds", steps, made))
    for line in plan:
        suffix = "-equal" if line["role"] == "equal_seconds" else ""
        folder = path / "runs" / f"{line['method']}-seed{line['seed']}{suffix}-{line['id']}"
        result, own = make_run(folder, line, made)
        results.append({key: json.dumps(v) if isinstance(v, dict) else v for key, v in result.items()})
        items += [{"id": line["id"], **{k: line[k] for k in ("method", "seed", "role")}, **item} for item in own]
    (path / "plan.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plan), encoding="utf-8")
    pd.DataFrame(results).to_parquet(path / "results.parquet")
    pd.DataFrame(items).to_parquet(path / "items.parquet")
    write_verdict(path)
    return path


def make_run(folder: Path, line: dict[str, Any], made: Made) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Writes one run folder; returns its result and its items."""
    folder.mkdir(parents=True)
    method, seed, role, steps = line["method"], line["seed"], line["role"], line["config"]["max_steps"]
    rng = np.random.default_rng([seed, sum(map(ord, method)), role == "main"])
    failed = (method, seed, role) in made.failed
    config = {
        "config": line["config"],
        "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0", "cegm": "0.1.0"},
        "hashes": {"data": "d" * 64, "code": "c" * 64, "initial_weights": f"{seed:064d}"},
        "model": {"parameters": PARAMETERS, "vocabulary": 1024, "max_length": 8192},
        "tokens": {"train": TOKENS_PER_STEP * steps, "validation": 65536, "validation_bytes": 310_000},
        "hardware": "2 cores, CPU",
        "threads": 1,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    records = _metrics(method, seed, steps if not failed else min(70, steps - 10), steps, rng, made)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    identity = {"id": line["id"], "method": method, "seed": seed, "role": role}
    if failed:
        result: dict[str, Any] = {**identity, "status": "failed", "error": made.error, "attempts": 2}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
        return result, []
    own = _items(method, seed)
    last = records[-1]
    result = {
        **identity,
        "status": "finished",
        "error": None,
        "attempts": 1,
        "final_loss": last["loss"],
        **{k: last[k] for k in ("bits_per_byte", "seconds", "median_step_seconds", "tokens", "steps", "memory_bytes")},
        **{k: last[k] for k in ("optimizer_state_bytes", "parameters", "initial_hash", "batch_hash")},
        "retention": _by_length(own),
        "trained_length": 256,
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in own), encoding="utf-8")
    return result, own


def _planned(method: str, seed: int, role: str, steps: int, made: Made) -> dict[str, Any]:
    config = {
        "method": method,
        "seed": seed,
        "model_name_or_path": "tiny",
        "data": made.data,
        "output_dir": "comparison",
        "max_length": 256,
        "per_device_train_batch_size": 8,
        "max_steps": steps,
        "learning_rate": 0.003 if method == "adamw" else 0.02,
        "aux_lr": None if method == "adamw" else 0.003,
        "weight_decay": 0.1,
        "optimizer_options": {"adamw": {}, "muon": {"momentum": 0.95}, "cegm": {"power": -0.5, "heads": 1}}.get(
            method, {}
        ),
    }
    return {
        "id": f"{abs(hash_of(method, seed, role)):012x}",
        "method": method,
        "seed": seed,
        "role": role,
        "config": config,
    }


def hash_of(method: str, seed: int, role: str) -> int:
    """A number that differs between runs and repeats between processes."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(f"{role[:4]}{seed}{method}"[:9])) + 7 * seed


def _metrics(method: str, seed: int, until: int, steps: int, rng: Any, made: Made) -> list[dict[str, Any]]:
    common, records = np.random.default_rng(seed).normal(0, 0.02), []
    gain, seconds = GAIN.get(method, 0.05), STEP_SECONDS.get(method, 0.2)
    own = rng.normal(0, 0.006)

    def loss(step: int) -> float:
        share = step / steps
        return float(
            4.6 * math.exp(-6 * share * (1 + gain))
            + 2.3
            + common
            - (gain + own - 0.05 * (steps / 400 - 1)) * min(1, 3 * share)
        )

    for step in range(until + 1):
        place = {"step": step, "tokens": step * TOKENS_PER_STEP, "seconds": step * seconds}
        if step % 10 == 0 and step:
            records.append(
                {"kind": "train", **place, **_train_line(method, step, steps, loss(step), seconds, rng, made)}
            )
        if step % 25 == 0 or step == until:
            records.append({"kind": "validation", **place, "loss": loss(step), "bits_per_byte": loss(step) * 0.31})
    if until == steps:
        final = {
            "steps": steps,
            "tokens": steps * TOKENS_PER_STEP,
            "seconds": steps * seconds,
            "loss": loss(steps),
            "bits_per_byte": loss(steps) * 0.31,
            "batch_hash": f"{seed:02d}{steps:04d}" + "b" * 58,
            "initial_hash": f"{seed:02d}" + "a" * 62,
            "final_hash": "f" * 64,
            "median_step_seconds": seconds * (1 + rng.normal(0, 0.004)),
            "optimizer_state_bytes": int(STATE.get(method, 6.0) * PARAMETERS),
            "memory_bytes": int((610 + 20 * GAIN.get(method, 0) + rng.normal(0, 2)) * 2**20),
            "parameters": PARAMETERS,
        }
        records.append({"kind": "final", **final})
    return records


def _train_line(
    method: str, step: int, steps: int, loss: float, seconds: float, rng: Any, made: Made
) -> dict[str, Any]:
    decay = min(1.0, step / 20) * min(1.0, max(0.0, (steps - step) / (0.4 * steps)))
    line = {
        "loss": loss + float(rng.normal(0, 0.08)),
        "lr_matrix": (0.003 if method == "adamw" else 0.02) * decay,
        "lr_adamw": 0.003 * decay,
        "gradient_norm": 1.2,
        "clip_factor": 0.83,
        "entanglement": 0.05 if method == "cegm" else None,
        "tokens_per_second": TOKENS_PER_STEP / seconds,
        "forward_backward_seconds": 0.165 + float(rng.normal(0, 0.002)),
        "optimizer_seconds": seconds - 0.165,
        "refreshed": step % 4 == 0,
        "memory_bytes": 610 * 2**20,
        "batch_hash": "b" * 64,
    }
    if step % 20 == 0:
        line["layers"] = {
            name: _layer(method, place / len(made.layers), step / steps, rng) for place, name in enumerate(made.layers)
        }
    return line


def _layer(method: str, depth: float, share: float, rng: Any) -> dict[str, float | None]:
    known = method == "cegm"
    raw = float(2 + 6 * share + rng.uniform(0, 1))
    numbers = {
        "gradient_norm": 0.1,
        "gradient_rank": raw,
        "update_rank": raw * 1.5 if method == "adamw" else float(90 + 30 * depth),
        "update_to_weight": float(0.004 * (1 - share) * (1 + depth) * rng.uniform(0.9, 1.1)) + 1e-5,
        "context_rank": float(12 + 60 * share * (1 - 0.6 * depth) + rng.normal(0, 1)) if known else math.nan,
        "gradient_context_rank": 20.0 if known else math.nan,
        "cosine": float(0.95 - 0.35 * share * depth + rng.normal(0, 0.01)) if known else math.nan,
        "entanglement": 0.05 if known else math.nan,
    }
    return numbers if method == "adamw" else {**numbers, "mapped_rank": 2 * raw if known else raw}


def _items(method: str, seed: int, count: int = 40) -> list[dict[str, Any]]:
    shared, own = np.random.default_rng(99), np.random.default_rng([seed, sum(map(ord, method))])
    hard = shared.random((len(LENGTHS), count))
    items = []
    for place, length in enumerate(LENGTHS):
        for number in range(count):
            margin = 0.72 + RECALL.get(method, 0.03) - 0.11 * place - hard[place, number] + own.normal(0, 0.12)
            items.append(
                {
                    "axis": "retention",
                    "form": "generated",
                    "subset": "",
                    "item": f"{length}-{number}",
                    "cluster": f"story-{number % 20}",
                    "level": length,
                    "score": float(margin > 0),
                    "continuous": float(4 * margin),
                    "chance": 0.125,
                    "readable": True,
                }
            )
    return items


def _by_length(items: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    levels = pd.DataFrame(items).groupby("level")[["score", "continuous", "chance"]].mean()
    return {
        str(level): {"accuracy": row["score"], "score": row["continuous"], "chance": row["chance"], "items": 40}
        for level, row in levels.to_dict("index").items()
    }


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 methods x 3 seeds, equal-seconds runs, one failed run; read only."""
    return make_comparison(tmp_path_factory.mktemp("made") / "comparison", Made())


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Makes a comparison of one's own: `make(seeds=2)`, with the fields of `Made`."""
    return lambda **changes: make_comparison(tmp_path / "made", Made(**changes))

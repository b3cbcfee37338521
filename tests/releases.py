"""Runs and releases without a training: records as a run writes them, a chain that holds, a model of a few bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cegm.durable import sha256
from cegm.lab.strict import yaml_text
from cegm.lab.train.audit import AuditLog
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.run_config import from_mapping

VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "cegm": "0.2.0"}
HASH = "0123456789abcdef" * 4


def line(step: int) -> dict[str, Any]:
    layers = {
        name: {
            "update_to_weight": share / step,
            "context_rank": 2.0 + step,
            "gradient_context_rank": 9.0 - step,
            "home": 0.5 / step,
        }
        for name, share in (("layers.0.q", 0.1), ("layers.1.q", 0.3), ("head", 0.2))
    }
    return {"kind": "train", "step": step, "tokens": 8 * step, "loss": 2.0 / step, "layers": layers}


def written_run(
    root: Path, options: dict[str, Any] | None = None, weights: bytes = b"weights", loss: float = 1.5
) -> Path:
    """A finished run with four logged steps, as `cegm train` leaves it."""
    folder = RunFolder(root)
    folder.model.mkdir(parents=True)
    (folder.model / "model.safetensors").write_bytes(weights)
    (folder.model / "config.json").write_text("{}")
    config = from_mapping(
        {"output_dir": str(root), "data": "text.txt", "max_steps": 4, **(options or {})}, "test"
    ).to_dict()
    hashes = {"data": HASH, "initial_weights": HASH[::-1], "code": HASH}
    described = {
        "config": config,
        "versions": VERSIONS,
        "hashes": hashes,
        "model": {"parameters": 3},
        "tokens": {"train": 64, "validation": 16},
        "left_out": {"empty": {"count": 1, "first": ["b.txt"]}},
        "hardware": "2 cores, CPU",
        "threads": 1,
    }
    folder.config.write_text(yaml_text(described), encoding="utf-8")
    final = {
        "loss": loss,
        "bits_per_byte": loss / 2,
        "steps": 4,
        "tokens": 32,
        "seconds": 1.0,
        "spikes": 0,
        "skipped_steps": 0,
    }
    lines = [
        {"kind": "validation", "step": 0, "tokens": 0, "loss": 3.0, "bits_per_byte": 1.5},
        *map(line, range(1, 5)),
        {"kind": "final", "step": 4, **final},
    ]
    folder.metrics.write_text("".join(json.dumps(each) + "\n" for each in lines))
    audit = AuditLog(folder.audit)
    said = {name: config[name] for name in ("operator", "data_source", "data_licence")}
    audit.record("start", method="cegm", seed=0, config=sha256(folder.config), **said)
    files = [folder.metrics, *sorted(folder.model.iterdir())]
    if config["explain_rows"]:
        driving = [{"token": "sea", "score": 0.25}]
        rows = [
            {"row": n, "tokens": 4, "loss": 1.0, "score": 0.5 - n, "text": f"by the sea {n}", "driving": driving}
            for n in (0, 1)
        ]
        folder.explanation.write_text(json.dumps({"step": 4, "rows": 9, "explained": rows}))
        files.append(folder.explanation)
    digests = {path.relative_to(root).as_posix(): sha256(path) for path in files}
    audit.record("finish", step=4, final_hash=HASH, files=digests)
    return root


def written_comparison(root: Path, loss: float = 1.5) -> Path:
    """A comparison whose verdict is about two runs."""
    for method in ("cegm", "adamw"):
        place = written_run(
            root / "runs" / f"{method}-seed0", {"method": method}, loss=loss if method == "cegm" else 2.0
        )
        (place / "result.json").write_text(json.dumps({"status": "finished", "tokens": 32, "bits_per_byte": loss / 2}))
    pair = {"pair": ["cegm", "adamw"], "effect": -0.25, "interval": [-0.5, -0.125], "word": "better"}
    arms = {"cegm": {"values": {"0": loss / 2}}, "adamw": {"values": {"0": 1.0}}}
    measure = {"name": "bits_per_byte", "title": "Validation loss at equal steps", "methods": arms, "pairs": [pair]}
    (root / "verdict.json").write_text(json.dumps({"statement": "One seed.", "screening": True, "measures": [measure]}))
    return root


def approve(place: Path, people: Path) -> list[str]:
    keys = ["--key", str(people / "approver.key"), "--trainer_key", str(people / "trainer.pub")]
    return ["audit", "--approve", str(place), *keys]


def verify(place: Path, people: Path, *more: str) -> list[str]:
    keys = ["--trainer_key", str(people / "trainer.pub"), "--approver_key", str(people / "approver.pub")]
    return ["audit", "--verify", str(place), *keys, *more]

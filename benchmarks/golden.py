"""Whether two checkouts train every method to the same losses and weights, to the bit.

python benchmarks/golden.py BEFORE AFTER --output benchmarks/results/golden/golden.json

Each checkout runs in a process of its own, on one thread of one machine: bits may differ between processors and between
versions of torch, so nothing is compared with a file. Only the command line is used, which both have.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cegm.lab.baselines import METHODS

RUNS = {
    **{method: {"method": method} for method in METHODS},
    "cegm paper": {"method": "cegm", "preset": "paper"},
    "cegm lite": {"method": "cegm", "preset": "lite"},
    "cegm attention": {"method": "cegm", "scores": "attention"},
    "cegm loss": {"method": "cegm", "beta": "0.1"},
    "cegm progress": {"method": "cegm", "coefficient": "progress", "learning_rate": "0.01"},
}
SHARED = {
    **{"model_name_or_path": "tiny", "data": "world", "max_length": "64", "per_device_train_batch_size": "4"},
    **{"max_steps": "36", "logging_steps": "1", "eval_rows": "8", "threads": "1", "progress": "false"},
}


def train(place: Path) -> dict[str, Any]:
    """Losses of every step in hexadecimal, and the hash of the last weights, by run; in this process, with its `cegm`."""
    import torch

    from cegm.lab.cli import main as cegm

    found = {}
    for name, options in RUNS.items():
        folder = place / name.replace(" ", "-")
        flags = {**SHARED, **options, "output_dir": str(folder)}
        code = cegm(["train", *(word for flag, value in flags.items() for word in (f"--{flag}", value))])
        if code:
            raise SystemExit(f"{name} ended with exit code {code}")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        losses = [line["loss"].hex() for line in lines if line["kind"] == "train"]
        found[name] = {"losses": losses, "weights": lines[-1]["final_hash"]}
    return {"torch": torch.__version__, "runs": found}


def trained(checkout: Path) -> dict[str, Any]:
    """What `train` finds with the code of a checkout."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "found.json"
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src"), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, __file__, "--train", str(path)], check=True, env=environment, cwd=place)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The runs that are not the same to the bit, with the first step at which they part."""
    told = []
    for name, run in before["runs"].items():
        other = after["runs"].get(name, {"losses": [], "weights": None})
        if run != other:
            pairs = enumerate(zip(run["losses"], other["losses"], strict=False), start=1)
            told.append(f"{name}: step {next((step for step, (a, b) in pairs if a != b), 'of the last weights')}")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, help="two checkouts of this repository")
    parser.add_argument("--output", type=Path, help="JSON file of what was found")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        arguments.train.write_text(json.dumps(train(arguments.train.parent)), encoding="utf-8")
        return 0
    if len(arguments.checkouts) != 2:
        parser.error(f"give two checkouts, not {len(arguments.checkouts)}")
    before, after = (trained(checkout) for checkout in arguments.checkouts)
    apart = differing(before, after)
    if arguments.output:
        arguments.output.write_text(json.dumps({**after, "differing": apart}, indent=1) + "\n", encoding="utf-8")
    print("\n".join(apart) or f"{len(before['runs'])} runs are the same to the bit (torch {after['torch']})")
    return int(bool(apart))


if __name__ == "__main__":
    sys.exit(main())

"""Twenty thousand steps with logging and checkpoints, watched from outside: memory, file handles, lines.

    python benchmarks/soak.py --output benchmarks/results/reliability/soak.jsonl

The model is as small as is fair: a Llama of one layer of 16 with every part that a large one has, trained by CEGM. Memory is
judged over the second half of the steps: a line through the means of twenty equal stretches (neighbouring samples are not
independent), with the 95 % interval of its slope.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cegm.lab.train import verification
from faults import write_model

STRETCHES = 20
MOST_SAMPLES = 400


def sample(process: int, run: Path) -> dict[str, Any] | None:
    """Resident memory, open handles and the last logged step of a process; None when it is gone or has not begun."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        handles = len(os.listdir(f"/proc/{process}/fd"))
        with (run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            last = json.loads(file.read().split(b"\n")[-2])
        rss = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return {"step": last.get("step"), "rss_bytes": rss, "handles": handles}


def watched(command: list[str], run: Path, every: float) -> tuple[int, list[dict[str, Any]]]:
    """Runs a command; returns its exit status and what was seen of it."""
    process, begun, seen = subprocess.Popen(command), time.monotonic(), []
    while process.poll() is None:
        time.sleep(every)
        found = sample(process.pid, run)
        if found is not None and found["step"]:
            seen.append({"seconds": round(time.monotonic() - begun, 1), **found})
    return process.returncode, seen


def slope(seen: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Change per thousand steps over the second half of the steps, with its 95 % interval."""
    half = max(one["step"] for one in seen) / 2
    late = [one for one in seen if one["step"] > half]
    parts = [part for part in np.array_split(np.arange(len(late)), STRETCHES) if len(part)]
    steps = [float(np.mean([late[index]["step"] for index in part])) / 1000 for part in parts]
    values = [float(np.mean([late[index][key] for index in part])) for part in parts]
    line = stats.linregress(steps, values)
    reach = float(stats.t.ppf(0.975, len(parts) - 2)) * line.stderr
    return {"slope": line.slope, "low": line.slope - reach, "high": line.slope + reach, "mean": float(np.mean(values))}


def judged(run: Path, steps: int, every: int, seen: list[dict[str, Any]]) -> dict[str, Any]:
    """What the log of the soak says, each from what was observed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [line["step"] for line in lines if line["kind"] == "train"]
    findings = verification.verify(run)
    return {
        "rss": slope(seen, "rss_bytes"),
        "handles": {"first": seen[0]["handles"], "most": max(one["handles"] for one in seen), **slope(seen, "handles")},
        "lines_expected": len({1, *range(every, steps + 1, every), steps}),
        "lines_found": len(logged),
        "lines_in_order": logged == sorted({1, *range(every, steps + 1, every), steps}),
        "verify": sorted({finding.state for finding in findings}),
        "parts_verified": len(findings),
        "final_loss": lines[-1]["loss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--logging_steps", type=int, default=10)
    parser.add_argument("--save_steps", type=int, default=500)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two looks at the process")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        write_model(Path(place) / "model", width=16, layers=1, positions=32)
        (Path(place) / "text.txt").write_text(
            "the river carries a small boat past old houses at night\n" * 2000, encoding="utf-8"
        )
        run = Path(place) / "run"
        options = {
            "model_name_or_path": Path(place) / "model", "data": Path(place) / "text.txt", "output_dir": run, "max_length": 16,
            "per_device_train_batch_size": 2, "max_steps": arguments.steps, "logging_steps": arguments.logging_steps, "eval_steps": 1000,
            "eval_rows": 4, "save_steps": arguments.save_steps, "save_total_limit": 2, "threads": 1, "learning_rate": 0.005,
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        status, seen = watched([sys.executable, "-m", "cegm.lab.cli", "train", *words], run, arguments.every)
        if status:
            raise SystemExit(f"the run ended with {status}")
        found = judged(run, arguments.steps, arguments.logging_steps, seen)
    kept = seen[:: max(1, len(seen) // MOST_SAMPLES)]
    settings = {name: value for name, value in vars(arguments).items() if name != "output"}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"soak": settings, "samples": len(seen)}, *kept, {"judged": found}]
    arguments.output.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

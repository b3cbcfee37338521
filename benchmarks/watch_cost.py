"""What being watched costs a run: its steps with the server of `cegm watch --page` and a reader at work, and with both asleep, in turns.

    python benchmarks/watch_cost.py --output benchmarks/results/watch/cost.json

One training of a small Llama with CEGM, a line with layers at every step; after every block of steps the watcher is stopped (SIGSTOP)
or woken (SIGCONT). A block's seconds are the mean of its steps but the first ones, those that recorded contexts left out; a pair of
blocks is a ratio, and their geometric mean has a 95 % interval by Student's t. The order within pairs alternates.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from cegm.lab.compare.progress import StepReader
from cegm.lab.train.folder import hardware
from faults import write_model

COMMAND = (sys.executable, "-m", "cegm.lab.cli")
LEFT_OUT = 5
"""First steps of a block, during which a watcher falls asleep or catches up."""


def listen(url: str) -> None:
    """Reads a page's stream, as a browser would."""
    with urllib.request.urlopen(f"{url}events?run=run") as stream:
        while stream.read1(1 << 16):
            pass


def training(place: Path, steps: int, width: int) -> list[str]:
    write_model(place / "model", width=width, layers=4, positions=128)
    (place / "text.txt").write_text(
        "the river carries a small boat past old houses at night\n" * 4000, encoding="utf-8"
    )
    options = {
        "model_name_or_path": place / "model", "data": place / "text.txt", "output_dir": place / "run", "max_length": 128,
        "per_device_train_batch_size": 4, "max_steps": steps, "logging_steps": 1, "eval_steps": 0, "eval_rows": 4, "threads": 1,
    }  # fmt: skip
    return [*COMMAND, "train", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def in_turns(words: list[str], run: Path, block: int, pairs: int) -> list[tuple[int, bool]]:
    """Trains, and tells from which step on the watcher was awake or asleep."""
    turns: list[tuple[int, bool]] = []
    reader = StepReader(run / "metrics.jsonl")
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        while reader.step() < block:
            time.sleep(0.05)
        with subprocess.Popen(
            [*COMMAND, "watch", str(run), "--page", "--port", "0"], stdout=subprocess.PIPE, encoding="utf-8"
        ) as server:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found is not None
            threading.Thread(target=listen, args=(found[0],), daemon=True).start()
            time.sleep(3.0)
            for pair in range(pairs):
                for is_awake in (True, False) if pair % 2 else (False, True):
                    os.kill(server.pid, signal.SIGCONT if is_awake else signal.SIGSTOP)
                    begun = reader.step()
                    turns.append((begun, is_awake))
                    while reader.step() < begun + block:
                        time.sleep(0.05)
            server.kill()
        turns.append((reader.step(), False))
        process.kill()
    return turns


def judged(run: Path, turns: list[tuple[int, bool]]) -> dict[str, Any]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[:-1]]
    seconds = {
        line["step"]: line["forward_backward_seconds"] + line["optimizer_seconds"]
        for line in lines
        if line["kind"] == "train" and not line["refreshed"]
    }
    blocks = [
        (is_awake, fmean(seconds[step] for step in range(begun + LEFT_OUT, end) if step in seconds))
        for (begun, is_awake), (end, _) in pairwise(turns)
    ]
    ratios = []
    for first, second in zip(blocks[::2], blocks[1::2], strict=True):
        awake, asleep = (first, second) if first[0] else (second, first)
        ratios.append(awake[1] / asleep[1])
    logs = [math.log(ratio) for ratio in ratios]
    reach = float(stats.t.ppf(0.975, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    mean = fmean(logs)
    return {
        "step_milliseconds_asleep": 1000 * fmean(each for is_awake, each in blocks if not is_awake),
        "ratio": math.exp(mean),
        "interval": [math.exp(mean - reach), math.exp(mean + reach)],
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--block", type=int, default=40, help="steps of a block")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        steps = 10 * arguments.block * arguments.pairs
        words = training(Path(place), steps, arguments.width)
        turns = in_turns(words, Path(place) / "run", arguments.block, arguments.pairs)
        found = judged(Path(place) / "run", turns)
    settings = {name: value for name, value in vars(arguments).items() if name != "output"}
    facts = {"hardware": hardware(), "load": os.getloadavg()[0], "settings": settings, **found}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""What an examination takes with an earlier version of the code and with this one: processor time on the same items, axis by axis in turn.

    git worktree add ../before VERSION
    python benchmarks/evaluation_speed.py --before ../before/src --model smollm2 --data ../shared/data --output benchmarks/results/evaluation

Both versions wait in a process of their own, with one thread, and measure an axis when they are told to, one after the other. `ratios.csv`
has the seconds of either and the greatest difference of a continuous score; `forecast.csv` the seconds that this version foretells for the
default number of items, by the pace of its own process. Few items, since the machine has other work: processor time, and not the time of
day, is what such a machine can tell.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

AXES: dict[str, dict[str, Any]] = {
    "ambiguity": {"items": 2},
    "consistency": {"items": 2},
    "reasoning": {"items": 2},
    "efficiency": {"items": 1},
    "noise": {"items": 1},
    "retention": {"items": 1, "LENGTHS": [512, 1024]},
    "drift": {"items": 4, "STEPS": 1},
    "complexity": {"items": 4},
    "coherence": {"items": 2},
    "domains": {"items": 1, "STEPS": [0, 1]},
}
"""Items per level of each axis, and what of its module is cut so that it ends."""


def work(model: str, data: str) -> None:
    """Measures the axes that are named on standard input, and answers with a line each."""
    import torch

    torch.set_num_threads(1)
    from importlib import import_module

    from cegm.lab.tasks.axes import AXES as KNOWN
    from cegm.lab.tasks.examinee import Examinee
    from cegm.lab.train.model import load_trained

    examinee = Examinee(*load_trained(model, False))
    examinee.choose_after([1, 2], [])
    for line in sys.stdin:
        name, cut = json.loads(line)
        if name == "forecast":
            print(json.dumps(forecast(examinee, data, cut["items"])), flush=True)
            continue
        module = import_module(f"cegm.lab.tasks.{name}")
        for constant, value in cut.items():
            if constant != "items":
                setattr(module, constant, value)
        more = {"lengths": cut["LENGTHS"]} if "LENGTHS" in cut and hasattr(examinee, "reads_trees") else {}
        ask = module.measure if more else KNOWN[name].examine
        start, tokens = time.process_time(), examinee.tokens
        records = ask(examinee, data, cut["items"], 0, **more)
        scores = {f"{r.subset}|{r.level}|{r.item}": r.continuous for r in records}
        seconds = time.process_time() - start
        print(json.dumps([seconds, examinee.tokens - tokens, scores]), flush=True)


def forecast(examinee: Any, data: str, items: int) -> list[list[Any]]:
    """Seconds of each axis of the paper, as foretold."""
    from cegm.lab.tasks import effort
    from cegm.lab.tasks.axes import chosen
    from cegm.lab.tasks.timetable import Timetable

    effort.time.perf_counter = time.process_time  # other work on the machine is none of ours
    axes = chosen("all")
    table = Timetable(examinee, axes, data, 0, effort.pace(examinee.model))
    return [[axis.name, seconds] for axis, seconds in zip(axes, table.seconds(items), strict=True)]


def started(source: str, arguments: argparse.Namespace) -> subprocess.Popen[str]:
    """A process that waits, with the code of one version."""
    command = [sys.executable, "-W", "ignore", __file__, "--work", "--model", arguments.model, "--data", arguments.data]
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")


def asked(process: subprocess.Popen[str], name: str, cut: dict[str, Any]) -> Any:
    """What a waiting process answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([name, cut]) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", help="the folder `src` of an earlier version")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", required=True, help="folder of public sets")
    parser.add_argument("--axes", default=",".join(AXES))
    parser.add_argument("--items", type=int, default=128, help="items per level of the forecast; 0 for none")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.model, arguments.data)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    now = started(str(Path(__file__).parents[1] / "src"), arguments)
    if arguments.before:
        ratios(started(arguments.before, arguments), now, arguments)
    if arguments.items:
        seconds = asked(now, "forecast", {"items": arguments.items})
        rows = [f"{name},{each:.0f}" for name, each in [*seconds, ["all", sum(each for _, each in seconds)]]]
        (arguments.output / "forecast.csv").write_text(
            "\n".join(["axis,processor_seconds", *rows]) + "\n", encoding="utf-8"
        )


def ratios(before: subprocess.Popen[str], now: subprocess.Popen[str], arguments: argparse.Namespace) -> None:
    """A line per axis as soon as it is known."""
    with (arguments.output / "ratios.csv").open("w", encoding="utf-8") as file:
        file.write("axis,items,cut,seconds_before,seconds_now,ratio,tokens_before,tokens_now,greatest_difference\n")
        for name in arguments.axes.split(","):
            cut = AXES[name]
            (old, tokens, scores), (new, fewer, others) = asked(before, name, cut), asked(now, name, cut)
            same = [key for key in scores.keys() & others.keys() if scores[key] == scores[key]]
            apart = max(abs(scores[key] - others[key]) for key in same)
            shorter = " ".join(f"{key}={value}".replace(",", "") for key, value in cut.items() if key != "items")
            file.write(
                f"{name},{cut['items']},{shorter},{old:.1f},{new:.1f},{old / new:.2f},{tokens},{fewer},{apart:.1e}\n"
            )
            file.flush()


if __name__ == "__main__":
    main()

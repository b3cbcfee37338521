"""All that an accelerator is asked, in one process that ends in time; `benchmarks/gpu.sh` runs it.

Three parts, each in its share of the time and each kept although another fails:

* `cost`: whole training steps of Muon, NorMuon, AdamW and CEGM, in turns, one layer of each width, passes in bfloat16;
  seconds, ratio to Muon with an interval, peak of memory (`step_cost.py`);
* `precision`: Muon and CEGM on the same batches in float32, with the polar factor alone in bfloat16, and with passes in
  bfloat16, too: how far their losses come apart;
* `training`: as many steps of a whole schedule as fit, of three methods, 30 million weights (`pretrain.py`). Rates are
  those tuned at .8 million weights, so it tells seconds and whether training is sound, not which method wins.

Needs torch and numpy.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import traceback
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import pretrain
import step_cost
import text

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "benchmarks/results/pretrain/settings.json"

LIMIT = 480.0
"""Seconds after the start of the shell script within which the last part wants to be done; the script itself ends after 540."""

COMPARED = "muon,normuon,adamw,cegm"
TRAINED = ("adamw", "normuon", "cegm")
PRECISE = ("muon", "cegm")
PRECISIONS: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32", "autocast": False},
    "bfloat16 polar": {"precision": "bfloat16", "autocast": False},
    "bfloat16 passes": {"precision": "bfloat16", "autocast": True},
}
SHARES = {"cost": 0.45, "precision": 0.15, "training": 0.4}
"""Of the time: each part has its share of what is left for it and those behind it."""

PROBED, CAUTION = 5, 0.8
"""Steps of which the time is taken before a schedule is fixed, and the part of what fits after it that is dared."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        device: Where.
        widths: Of `cost`.
        tokens: Of a batch, in rows of `length`.
        block: Steps between two refreshes; a round has as many of every method.
        rounds: At most.
        precise: Size of the model of `precision`.
        trained: Of `training`.
        most_steps: Of any schedule.
        seconds: Until the last part wants to be done.
    """

    device: str
    widths: tuple[int, ...]
    tokens: int
    length: int
    block: int
    rounds: int
    precise: str
    trained: str
    most_steps: int
    seconds: float


ACCELERATOR = Sizes("cuda", (1024, 2048, 4096), 65_536, 1024, 25, 8, "3M", "30M", 2000, LIMIT)
REHEARSAL = Sizes("cpu", (32, 64), 256, 64, 2, 1, "0.1M", "0.1M", 4, 40.0)


def cost(sizes: Sizes, seconds: float, _: tuple[np.ndarray, ...]) -> list[dict[str, Any]]:
    """A line of `step_cost.py` for each width; the widest take most of the time."""
    found = []
    for width in sizes.widths:
        share = seconds * width / sum(sizes.widths)
        arguments = Namespace(
            methods=COMPARED, device=sizes.device, autocast=True, rounds=sizes.rounds, block=sizes.block,
            seconds=share, threads=torch.get_num_threads(),
        )  # fmt: skip
        size = {"hidden": width, "tokens": sizes.tokens, "length": sizes.length, "layers": 1}
        found.append(step_cost.measure(arguments, size))
        step_cost.show(found[-1])
    return found


def precision(sizes: Sizes, seconds: float, data: tuple[np.ndarray, ...]) -> dict[str, Any]:
    """Final losses by method and precision, and how far they are from those of float32 over the same batches."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))

    def contestant(method: str, steps: int, precision: str, autocast: bool) -> pretrain.Contestant:
        arguments = training_arguments(sizes, sizes.precise, steps, autocast)
        return pretrain.Contestant(method, {**settings[method], "precision": precision}, arguments, seed=0)

    ways = {f"{method}, {name}": (method, way) for method in PRECISE for name, way in PRECISIONS.items()}
    probed = [contestant(method, PROBED, **way) for method, way in ways.values()]
    steps = steps_that_fit(probed, sizes, seconds, data[0])
    contestants = {name: contestant(method, steps, **way) for name, (method, way) in ways.items()}
    batches = drawn(data[0], sizes, steps, seed=0)
    losses = {name: np.array(each.train(batches)) for name, each in contestants.items()}
    held_out = drawn(data[1], sizes, 8, seed=pretrain.VALIDATION_SEED)
    final = {name: each.validate(held_out) for name, each in contestants.items()}
    exact = {name: f"{method}, float32" for name, (method, _) in ways.items()}
    return {
        "steps": steps,
        "validation": final,
        "from_float32": {name: final[name] - final[exact[name]] for name in ways},
        "largest_gap_of_a_step": {name: float(abs(losses[name] - losses[exact[name]]).max()) for name in ways},
        "seconds_per_step": {name: each.seconds / steps for name, each in contestants.items()},
    }


def training(sizes: Sizes, seconds: float, data: tuple[np.ndarray, ...]) -> dict[str, Any]:
    """The log of `pretrain.py` over a schedule as long as fits."""
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    chosen = {name: settings[name] for name in TRAINED}
    arguments = training_arguments(sizes, sizes.trained, PROBED, autocast=True)
    probed = [pretrain.Contestant(name, chosen[name], arguments, seed=0) for name in TRAINED]
    arguments.steps = steps_that_fit(probed, sizes, seconds, data[0])
    del probed
    with TemporaryDirectory() as place:
        arguments.output = Path(place) / "log.jsonl"
        pretrain.run_seed(arguments, chosen, 0, data)
        lines = [json.loads(line) for line in arguments.output.read_text(encoding="utf-8").splitlines()]
    return {"settings": chosen, "steps": arguments.steps, "lines": lines}


def training_arguments(sizes: Sizes, size: str, steps: int, autocast: bool) -> Namespace:
    """As `pretrain.py` reads them from its command line."""
    rows = sizes.tokens // sizes.length
    return Namespace(
        size=size, steps=steps, warmup=max(1, steps // 20), vocabulary=256, device=sizes.device, autocast=autocast, rate=1.0,
        rows=rows, length=sizes.length, validation_rows=rows, turn=max(1, steps // 10),
    )  # fmt: skip


def steps_that_fit(contestants: list[pretrain.Contestant], sizes: Sizes, seconds: float, training: np.ndarray) -> int:
    """How many steps of all of them fit into what is left of so many seconds after a few were tried."""
    began = time.perf_counter()
    for contestant in contestants:
        contestant.train(drawn(training, sizes, PROBED, seed=1))
    each = sum(contestant.seconds / PROBED for contestant in contestants)
    left = seconds - (time.perf_counter() - began)
    return int(min(sizes.most_steps, max(2.0, CAUTION * left / each)))


def drawn(given: np.ndarray, sizes: Sizes, count: int, seed: int) -> list[torch.Tensor]:
    """Batches, (rows, length) each, on the device."""
    rng, rows = np.random.default_rng(seed), sizes.tokens // sizes.length
    batches = [text.rows(given, rows, sizes.length, rng) for _ in range(count)]
    return [torch.from_numpy(batch).to(sizes.device) for batch in batches]


def kept(part: Callable[..., Any], *given: Any) -> dict[str, Any]:
    """What a part found, or how it failed, and its seconds."""
    began = time.perf_counter()
    try:
        result = {"found": part(*given)}
    except Exception:  # whatever it is, the other parts have to be told
        result = {"error": traceback.format_exc()}
        print(result["error"], flush=True)
    return {**result, "seconds": time.perf_counter() - began}


def machine(device: str) -> dict[str, Any]:
    """What the numbers are of."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    if device == "cpu":
        return {"versions": versions, "hardware": f"{platform.machine()}, CPU"}
    properties = torch.cuda.get_device_properties(0)
    return {"versions": versions, "hardware": properties.name, "memory": properties.total_memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of accelerator.json")
    parser.add_argument(
        "--text", type=Path, default=None, help="folder of .txt and .md; default: generated; docs/ in a rehearsal"
    )
    parser.add_argument("--rehearse", action="store_true", help="the same on a processor, tiny")
    parser.add_argument(
        "--began", type=float, default=time.time(), help="when the script was started, seconds since 1970"
    )
    arguments = parser.parse_args()
    sizes = REHEARSAL if arguments.rehearse else ACCELERATOR
    if sizes.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no accelerator here; --rehearse tries everything on the processor")
    arguments.output.mkdir(parents=True, exist_ok=True)
    data = text.load(arguments.text or (ROOT / "docs" if arguments.rehearse else text.WORLD))
    found: dict[str, Any] = {
        "rehearsal": arguments.rehearse,
        **machine(sizes.device),
        "sizes": asdict(sizes),
        "parts": {},
    }
    waiting = dict(SHARES)
    for part in (cost, precision, training):
        left = max(0.0, sizes.seconds - (time.time() - arguments.began))
        seconds = left * waiting[part.__name__] / sum(waiting.values())
        found["parts"][part.__name__] = kept(part, sizes, seconds, data)
        del waiting[part.__name__]
        found["seconds"] = time.time() - arguments.began
        (arguments.output / "accelerator.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    raise SystemExit(int(any("error" in part for part in found["parts"].values())))


if __name__ == "__main__":
    main()

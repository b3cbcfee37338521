"""Fine-tunes LoRA adapters of a small model on new text with several rules, and with initial factors of other sizes.

    python benchmarks/retention.py --data FOLDER --output OUT/any.jsonl --rules adamw --seeds 0   # trains OUT/home_model.pt
    python benchmarks/lora.py --data FOLDER --model OUT/home_model.pt --output benchmarks/results/lora/irc.jsonl --domains irc

The byte model of .8 million weights that knows novels gets adapters of rank 8 on all its layers, which learn another
kind of text for 100 steps of 4 x 128 bytes. Every rule is tuned on one seed at three rates, and at one more where the
best is at an edge; test seeds take its best rate, and so do the runs whose factors `A` begin `scale` times as large
(`B` begins at zero, so that the model is the same). A line that the log already holds is not repeated. Gradients are
clipped to a norm of 1 over both factors, which depends on how large they are; `--clip inf` leaves that out.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

import text
from cegm import CEGM
from lora_table import SCALED_SEED, SCALES, TEST_SEEDS, TUNING_SEED, Line, best
from retention import (
    ADAM,
    DOMAINS,
    HELD_OUT_SEED,
    MUON,
    RANK,
    STEPS,
    WARMUP,
    Reader,
    adapted,
    fit,
    folder_text,
    loss_of,
)

ROWS, LENGTH, HELD_OUT_ROWS = 4, 128, 128
SCALED = ("adamw", "product")
DECAY = {"weight_decay": 0.0}
ADAMS_SHARE = 0.3
"""Of Muon's rate, as that of AdamW beside it: tuned apart, theirs are as 1 to 3 (docs/peers.md)."""


def plus(model: nn.Module, rate: float) -> CEGM:
    """LoRA+ (arXiv 2402.12354): AdamW, with a rate for `B` that is 16 times as large."""
    first, second = ([p for name, p in model.named_parameters() if f"lora_{factor}" in name] for factor in "AB")
    return CEGM([{"params": first}, {"params": second, "lr": 16 * rate}], lr=rate, model=model, **ADAM, **DECAY)


def muon_on_b(model: nn.Module, rate: float) -> CEGM:
    """Muon for `B`, AdamW for `A`."""
    patterns = [("*lora_A*", "adamw")]
    return CEGM(model, rate, aux_lr=ADAMS_SHARE * rate, group_patterns=patterns, **{**MUON, **DECAY})


RULES: dict[str, tuple[tuple[float, ...], Callable[[nn.Module, float], CEGM]]] = {
    "adamw": ((1e-3, 3e-3, 1e-2), lambda model, rate: CEGM(model, rate, **ADAM, **DECAY)),
    "lora_plus": ((3e-4, 1e-3, 3e-3), plus),
    "muon": ((3e-3, 1e-2, 3e-2), lambda model, rate: CEGM(model, rate, **MUON, **DECAY)),
    "muon_b": ((3e-3, 1e-2, 3e-2), muon_on_b),
    "cegm": ((3e-3, 1e-2, 3e-2), lambda model, rate: CEGM(model, rate, **DECAY)),
    "product": ((3e-3, 1e-2, 3e-2), lambda model, rate: CEGM(model, rate, normalize="product", **DECAY)),
}
"""Rates that are tried, and what takes the steps; `product` is `cegm` with normalize="product"."""


class Bench:
    """The model that knows its home, and one new text."""

    def __init__(self, data: Path, weights: Path, domain: str) -> None:
        self.model = Reader()
        self.model.load_state_dict(torch.load(weights, weights_only=True))
        self.new, held_out = folder_text(data / DOMAINS[domain])
        self.held_out = torch.from_numpy(rows_of(held_out, HELD_OUT_ROWS, HELD_OUT_SEED))

    def run(self, rule: str, rate: float, scale: float, seed: int, clip: float) -> Line:
        model = adapted(copy.deepcopy(self.model), RANK, seed).train()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.mul_(scale if "lora_A" in name else 1.0)
        batches = list(torch.from_numpy(rows_of(self.new, STEPS * ROWS, seed)).split(ROWS))
        seconds = fit(model, RULES[rule][1](model, rate), batches, WARMUP, clip)
        return {"new": self.loss(model.eval()), "before": self.loss(self.model), "seconds": round(seconds, 2)}

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        return float(loss_of(model, self.held_out))


def rows_of(data: np.ndarray, count: int, seed: int) -> np.ndarray:
    return text.rows(data, count, LENGTH, np.random.default_rng(seed))


def points(lines: list[Line], domain: str, rules: list[str], given: tuple[float, ...]) -> Iterator[Line]:
    """What is run, in this order; what comes after tuning follows from what `lines` holds by then."""
    for rule in rules:
        rates = given or RULES[rule][0]
        yield from (point(domain, rule, rate, TUNING_SEED) for rate in rates)
        for edge, inner in (rates[:2], rates[:-3:-1]) if not given else ():
            if best(lines, domain, rule) == edge:
                yield point(domain, rule, float(f"{edge**2 / inner:.1g}"), TUNING_SEED)
    for seed in TEST_SEEDS:
        yield from (point(domain, rule, best(lines, domain, rule), seed) for rule in rules)
        for rule in (rule for rule in rules if rule in SCALED and seed == SCALED_SEED):
            yield from (point(domain, rule, best(lines, domain, rule), seed, scale) for scale in SCALES)


def point(domain: str, rule: str, rate: float, seed: int, scale: float = 1.0) -> Line:
    return {"domain": domain, "rule": rule, "rate": rate, "scale": scale, "seed": seed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds chat_irc, legal_sitepolicy")
    parser.add_argument("--model", type=Path, required=True, help="weights of the model that knows novels")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--domains", default="irc,legal")
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--rates", type=float, nargs="*", default=(), help="in place of the rules' own")
    parser.add_argument("--clip", type=float, default=1.0, help="norm to which gradients are clipped; inf: none are")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        [json.loads(line) for line in options.output.read_text(encoding="utf-8").splitlines()]
        if options.output.exists()
        else []
    )
    for domain in options.domains.split(","):
        bench = Bench(options.data, options.model, domain)
        for planned in points(lines, domain, options.rules.split(","), tuple(options.rates)):
            if any(planned.items() <= line.items() for line in lines):
                continue
            run = (planned[name] for name in ("rule", "rate", "scale", "seed"))
            lines.append({**planned, **bench.run(*run, options.clip)})
            with options.output.open("a", encoding="utf-8") as log:
                log.write(json.dumps(lines[-1]) + "\n")
            print(" ".join(f"{name} {value}" for name, value in lines[-1].items()), flush=True)


if __name__ == "__main__":
    main()

"""Teaches a small model four kinds of text one after the other, with context cards that add up: what is left of each at the end.

    python benchmarks/retention_stream.py --data FOLDER --output benchmarks/results/retention/stream.jsonl --seeds 0,1,2
    python benchmarks/retention_stream.py --output benchmarks/results/retention/stream.jsonl --table

It begins from the model of retention.py, which knows novels and lies beside the log (it is trained where it does not), and
goes on for four stages of 100 steps of 8 x 256 bytes. Before each stage a rule that retains notes what the model knows by
then: of text that it writes itself, or of the rows that it was taught last; cards and Fisher diagonals of all stages add
up, so a stream keeps one matrix per layer. `average_forgetting` is the mean, over novels and the first three kinds, of the
rise of the held-out loss from where it was learned to the end; `final` has the loss of every kind at the end. As a control
the same rows are taught in one random order: there is no old and new, so no rule should gain. FOLDER holds the texts of
retention.py and general_openstax_biology.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

import retention
from cegm import card
from cegm.columns import aligned
from cegm.lab.baselines import build_optimizer
from cegm.lab.baselines.ewc import diagonal_fisher
from retention import CARD_ROWS, DOMAINS, HELD_OUT_ROWS, HELD_OUT_SEED, ROWS, STEPS, WARMUP, Reader

KINDS = {**DOMAINS, "biology": "general_openstax_biology"}
ORDERS = ("stream", "shuffled")

RULES: dict[str, dict[str, Any]] = {
    **{
        name: retention.RULES[name]
        for name in ("adamw", "muon", "adam_own", "muon_own", "replay_12", "l2_sp_10", "ewc_100")
    },
    "adam_text": {**retention.RULES["adam_own"], "card": "text"},
    "muon_text": {**retention.RULES["muon_own"], "card": "text"},
}
"""As in retention.py, at one rate for all stages; replay is of everything that came before."""


class Stream:
    """The model that knows novels, the four kinds of text, and what is held out of all."""

    def __init__(self, data: Path, kept: Path) -> None:
        texts = {"novels": data / "general_novels", **{name: data / folder for name, folder in KINDS.items()}}
        self.texts, held_out = {}, {}
        rng = np.random.default_rng(HELD_OUT_SEED)
        for name, folder in texts.items():
            self.texts[name], left = retention.folder_text(folder)
            held_out[name] = retention.rows(left, HELD_OUT_ROWS, rng)
        self.held_out = held_out
        self.model = retention.home_model(kept, self.texts["novels"])

    @torch.no_grad()
    def losses(self, model: Reader) -> dict[str, float]:
        return {name: float(retention.loss_of(model.eval(), tokens)) for name, tokens in self.held_out.items()}

    def stages(self, order: str, rng: np.random.Generator) -> list[Tensor]:
        """Rows of every stage, (steps, rows, length); shuffled, the same rows in one random order."""
        stages = [torch.cat([retention.rows(self.texts[name], ROWS, rng) for _ in range(STEPS)]) for name in KINDS]
        if order == "shuffled":
            everything = torch.cat(stages)
            stages = list(everything[torch.from_numpy(rng.permutation(len(everything)))].chunk(len(stages)))
        return [stage.unflatten(0, (STEPS, ROWS)) for stage in stages]

    def run(self, rule: dict[str, Any], rate: float, seed: int, order: str) -> dict[str, Any]:
        model, rng = copy.deepcopy(self.model), np.random.default_rng(seed)
        stages = self.stages(order, rng)
        taught = retention.rows(self.texts["novels"], STEPS * ROWS, rng)
        path, known, last, seconds = [self.losses(model)], None, taught, 0.0
        for number, stage in enumerate(stages):
            known = added(known, gathered(rule, model, last, seed + number))
            options = {"weight_decay": 0.0, "aux_lr": 0.0, **rule["options"]}
            options |= {} if known is None else {"retain": known}
            optimizer = build_optimizer(rule.get("method", "cegm"), model.train(), lr=rate, **options)
            seconds += retention.fit(model, optimizer, list(mixed(stage, taught, rule.get("replay", 0.0), rng)), WARMUP)
            last = stage.flatten(0, 1)
            taught = torch.cat([taught, last])
            path.append(self.losses(model))
        learned = ["novels", *list(KINDS)[:-1]]
        rises = [path[-1][name] - path[when][name] for when, name in enumerate(learned)]
        return {"average_forgetting": mean(rises), "final": path[-1], "path": path, "seconds": round(seconds, 2)}


def gathered(rule: dict[str, Any], model: Reader, last: Tensor, seed: int) -> Any:
    """What a rule keeps of what the model knows now: a card, a Fisher diagonal, or nothing."""
    kind = rule.get("card") or rule.get("fisher")
    if kind is None:
        return None
    rows = retention.own_rows(model.eval(), CARD_ROWS, seed) if kind == "own" else last[-CARD_ROWS:]
    return (
        diagonal_fisher(model, rows)
        if "fisher" in rule
        else card(model, rows.split(16), share=1.0, home={"text": kind})
    )


def added(known: Any, more: Any) -> Any:
    """Both together, as far as there are any."""
    if known is None or more is None:
        return more
    return {name: known[name] + each for name, each in more.items()} if isinstance(more, dict) else known + more


def mixed(stage: Tensor, taught: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """The stage with a share of its rows replaced by rows from before, all of which are as likely."""
    if not share:
        return stage
    stage = stage.clone()
    old = torch.from_numpy(rng.random(stage.shape[:2]) < share)
    stage[old] = taught[torch.from_numpy(rng.integers(0, len(taught), int(old.sum())))]
    return stage


def table(lines: list[dict[str, Any]]) -> str:
    """By order, rule and rate, means over seeds."""
    runs: dict[tuple[str, str, float], list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        runs[line["order"], line["rule"], line["rate"]].append(line)
    kinds = list(lines[0]["final"])
    rows = [["order", "rule", "rate", "seeds", "forgotten", *kinds]]
    for (order, rule, rate), each in runs.items():
        numbers = [mean(line["average_forgetting"] for line in each)]
        numbers += [mean(line["final"][kind] for line in each) for kind in kinds]
        rows.append([order, rule, f"{rate:g}", str(len(each)), *(f"{number:.3f}" for number in numbers)])
    return "\n".join(aligned(rows, {0, 1}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="FOLDER; not needed for --table")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--orders", default=",".join(ORDERS))
    parser.add_argument("--rates", default="", help="in place of the rule's own")
    parser.add_argument("--table", action="store_true", help="only print what the log holds")
    options = parser.parse_args()
    lines = options.output.read_text(encoding="utf-8").splitlines() if options.output.exists() else []
    if options.table:
        print(table([json.loads(line) for line in lines]))
        return
    options.output.parent.mkdir(parents=True, exist_ok=True)
    names = ("order", "rule", "rate", "seed")
    done = {tuple(json.loads(line)[name] for name in names) for line in lines}
    stream = Stream(options.data, options.output.parent / "home_model.pt")
    for seed in map(int, options.seeds.split(",")):
        for rule in options.rules.split(","):
            rates = [float(rate) for rate in options.rates.split(",")] if options.rates else RULES[rule]["rates"]
            for key in ((order, rule, rate, seed) for rate in rates for order in options.orders.split(",")):
                if key in done:
                    continue
                line = {**dict(zip(names, key, strict=True)), **stream.run(RULES[rule], key[2], seed, key[0])}
                with options.output.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                print(f"{key[0]} {rule} {key[2]:g} seed {seed}: forgotten {line['average_forgetting']:.3f}", flush=True)


if __name__ == "__main__":
    main()

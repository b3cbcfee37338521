"""Fine-tunes SmolLM2-135M-Instruct at many learning rates: what it learned, what it forgot, and what a step cost.

    python benchmarks/finetuning.py --data FOLDER --output benchmarks/results/finetuning/rates.jsonl
    python benchmarks/finetuning.py --data FOLDER --output ... --rules adamw,finetune_own --ways lora --domains irc --seeds 0,1

Every rule goes on from the model for 40 steps of 2 x 256 tokens of another kind of text (warm-up of 10 steps, then a cosine),
with all weights of its layers or with LoRA of rank 16, at several rates: a rule is a front, never one rate. A line of the log
holds losses on held-out text before and after, in nats per token: `new` of the text that was trained on, `own` of what the model
wrote itself, `general` of an encyclopedia and `novels`, which no card has seen; and `divergence`, the mean KL divergence per token
from the model before on its own text. The tied embedding, which has no contexts, stands still in all of them. A card is of 16,384
tokens that the model wrote itself and keeps a quarter of the directions. A line that the log already holds is not repeated.
FOLDER holds chat_irc, legal_sitepolicy, tech_peps, general_novels and wikitext2_eval. `make smollm2` first.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import get_scheduler

from cegm.context.card import ContextCard
from cegm.lab.compare.learner import Learner
from cegm.lab.train.cards import make, own_rows
from cegm.lab.train.folder import hardware
from cegm.lab.train.model import load_trained, with_adapters
from cegm.lab.train.prepare import quieten
from cegm.lab.train.provenance import versions
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import build
from retention import folder_text

ROWS, LENGTH, STEPS, WARMUP, RANK = 2, 256, 40, 10, 16
HELD_OUT_ROWS, HELD_OUT_SEED = 16, 2**31
DOMAINS = {"irc": "chat_irc", "legal": "legal_sitepolicy", "peps": "tech_peps", "novels": "general_novels"}

RULES: dict[str, dict[str, Any]] = {
    "adamw": {"method": "adamw"},
    "muon": {"method": "muon"},
    "cegm": {"method": "cegm"},
    "finetune": {"method": "cegm", "options": {"preset": "finetune"}},
    "finetune_own": {"method": "cegm", "options": {"preset": "finetune"}, "card": True},
    "muon_own": {"method": "cegm", "options": {"gradient_power": 0.0, "row_moment": False}, "card": True},
}
"""Method, its options, and whether it retains by a card of the model's own text."""

RATES = {
    "full": {"adamw": (2e-5, 6e-5, 2e-4, 6e-4), "muon": (2e-5, 6e-5, 2e-4, 6e-4)},
    "lora": {"adamw": (1e-4, 3e-4, 1e-3, 3e-3), "muon": (1e-4, 3e-4, 1e-3, 3e-3)},
}
"""By way and family: those whose step is as long as AdamW's, and those with a polar factor."""

FAMILY = {"cegm": "muon", "muon_own": "muon", "finetune": "adamw", "finetune_own": "adamw"}


class Bench:
    """The model, held-out texts, and its card, made when first asked for and kept beside the log."""

    def __init__(self, data: Path, kept: Path) -> None:
        self.model, self.tokenizer = load_trained("smollm2", trust_remote_code=False)
        self.data, self._kept = data, kept
        _, novels = folder_text(data / "general_novels")
        general = sorted((data / "wikitext2_eval").rglob("*test*"))[0].read_bytes()
        self._held_out = {
            "novels": self.drawn(bytes(novels), HELD_OUT_SEED),
            "general": self.drawn(general, HELD_OUT_SEED),
            "own": own_rows(self.model, self.tokenizer, HELD_OUT_ROWS, LENGTH, HELD_OUT_SEED),
        }
        with torch.no_grad():
            self._own_before = [self._own_predictions(self.model, part).half() for part in self._own_parts()]

    def drawn(self, text: bytes, seed: int, rows: int = HELD_OUT_ROWS) -> Tensor:
        """Rows of tokens from random places of a text, (rows, LENGTH)."""
        rng = np.random.default_rng(seed)
        found = []
        while len(found) < rows:
            start = int(rng.integers(0, len(text) - 16 * LENGTH))
            ids = self.tokenizer(text[start : start + 16 * LENGTH].decode(errors="ignore"))["input_ids"]
            if len(ids) > LENGTH + 1:
                found.append(torch.tensor(ids[1 : LENGTH + 1]))  # the first may be half a word
        return torch.stack(found)

    def domain(self, name: str) -> tuple[bytes, Tensor]:
        """Text to train on, and held-out rows."""
        training, held_out = folder_text(self.data / DOMAINS[name])
        return bytes(training), self.drawn(bytes(held_out), HELD_OUT_SEED)

    def _own_parts(self) -> tuple[Tensor, ...]:
        return self._held_out["own"].split(4)

    def _own_predictions(self, model: Any, rows: Tensor) -> Tensor:
        """Log-probabilities of the next tokens, (rows, tokens - 1, vocabulary)."""
        predictions: Tensor = model(input_ids=rows).logits[:, :-1].float().log_softmax(-1)
        return predictions

    @torch.no_grad()
    def losses(self, model: Any, new: Tensor) -> dict[str, float]:
        """Loss of every held-out text, and the divergence from the model before."""
        model.eval()
        found = {}
        for name, rows in {"new": new, **self._held_out}.items():
            parts = [self._own_predictions(model, part).gather(-1, part[:, 1:, None]).sum() for part in rows.split(4)]
            found[name] = -float(sum(parts)) / rows[:, 1:].numel()
        divergences = []
        for before, part in zip(self._own_before, self._own_parts(), strict=True):
            old, after = before.float(), self._own_predictions(model, part)
            divergences.append(float((old.exp() * (old - after)).sum(-1).mean()))
        found["divergence"] = float(np.mean(divergences))
        return {name: round(value, 5) for name, value in found.items()}

    def card(self) -> ContextCard:
        path = self._kept / "smollm2_own.safetensors"
        if not path.exists():
            begun = time.perf_counter()
            make(self.model, self.tokenizer, "own").save(path)
            print(f"card: {time.perf_counter() - begun:.0f} s, {path.stat().st_size / 2**20:.0f} MiB", flush=True)
        return ContextCard.load(path)

    def run(self, rule: str, way: str, rate: float, seed: int, text: bytes) -> tuple[Any, dict[str, float]]:
        """The model after training, and seconds of passes and updates per step."""
        settings = RULES[rule]
        config = RunConfig(
            "smollm2", method=settings["method"], learning_rate=rate, lora_r=RANK if way == "lora" else 0,
            max_length=LENGTH, warmup_steps=WARMUP, seed=seed, optimizer_options=settings.get("options", {}),
        )  # fmt: skip
        model = copy.deepcopy(self.model)
        torch.manual_seed(seed)
        if way == "lora":
            model = with_adapters(model, config)
        model.get_input_embeddings().requires_grad_(False)
        learner = Learner(config, model)
        if settings.get("card"):
            learner.optimizer = build(config, model, self.card())
        schedule = get_scheduler("cosine", learner.optimizer, WARMUP, STEPS)
        seconds = {"passes": 0.0, "update": 0.0}
        for tokens in self.drawn(text, seed, STEPS * ROWS).split(ROWS):
            begun = time.perf_counter()
            loss, _ = learner.gradients([tokens])
            between = time.perf_counter()
            learner.update(loss)
            schedule.step()
            seconds["passes"] += between - begun
            seconds["update"] += time.perf_counter() - between
        return model, {name: round(each / STEPS, 3) for name, each in seconds.items()}


def planned(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    names = (each.split(",") for each in (options.domains, options.ways, options.seeds, options.rules))
    for domain, way, seed, rule in itertools.product(*names):
        rates = [float(r) for r in options.rates.split(",")] if options.rates else RATES[way][FAMILY.get(rule, rule)]
        for rate in rates:
            yield {"domain": domain, "way": way, "rule": rule, "rate": rate, "seed": int(seed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--ways", default="lora,full")
    parser.add_argument("--domains", default="irc,legal")
    parser.add_argument("--rates", default="", help="in place of the rule's own")
    options = parser.parse_args()
    quieten()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    lines = options.output.read_text(encoding="utf-8").splitlines() if options.output.exists() else []
    points = list(planned(options))
    done = [{name: json.loads(line)[name] for name in points[0]} for line in lines]
    bench, begun = Bench(options.data, options.output.parent), time.perf_counter()
    place = {"hardware": hardware(), "versions": versions()}
    texts = {name: bench.domain(name) for name in options.domains.split(",")}
    before = {name: bench.losses(bench.model, held_out) for name, (_, held_out) in texts.items()}
    missing = [point for point in points if point not in done]
    for number, point in enumerate(missing):
        text, held_out = texts[point["domain"]]
        model, seconds = bench.run(*(point[name] for name in ("rule", "way", "rate", "seed")), text)
        line = {**point, "after": bench.losses(model, held_out), "before": before[point["domain"]], "seconds": seconds}
        with options.output.open("a", encoding="utf-8") as log:
            log.write(json.dumps({**line, **(place if not number else {})}) + "\n")
        left = (time.perf_counter() - begun) / (number + 1) * (len(missing) - number - 1) / 60
        learned = {name: round(line["after"][name] - line["before"][name], 3) for name in line["after"]}
        print(f"{' '.join(map(str, point.values()))}: {learned} {seconds}, {left:.0f} min left", flush=True)


if __name__ == "__main__":
    main()

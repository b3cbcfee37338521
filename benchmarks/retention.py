"""Fine-tunes a small model on new text with and without a context card: what it learned against what it forgot.

    python benchmarks/retention.py --data FOLDER --output benchmarks/results/retention/small.jsonl --seeds 0,1,2
    python benchmarks/retention.py --data FOLDER --output ... --seeds 1000 --rules adamw,adam_own --domains irc

A byte model of .8 million weights is trained on novels first, once, and kept beside the log (not in git). Then every rule
goes on from it for 100 steps of 8 x 256 bytes on another kind of text, at several learning rates: a rule is a front of
new loss against forgetting, never one rate. The embedding, which is the head too and has no contexts, stands still in
all of them (`--option aux_lr=0.001` trains it). `forgotten` is the rise of the loss on novels that nobody trained on,
`general` that on an encyclopedia that no card has seen, `divergence` the mean KL divergence per byte from the model before
on text that it wrote itself. A line that the log already holds is not repeated. A baseline that is as strong as its
strength makes it has a rule per strength (`ewc_100`); the rule wise_ft mixes the weights before and after AdamW in several
shares, one line each (`wise_ft_50`). FOLDER holds general_novels, chat_irc,
tech_peps, legal_sitepolicy and wikitext2_eval.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

import text
from cegm import CEGM, card
from cegm.context.card import ContextCard, Spectrum
from cegm.lab.baselines import build_optimizer
from cegm.lab.baselines.ewc import diagonal_fisher
from cegm.lab.baselines.lora_null import begin_in_null_space
from cegm.lab.models.interpolation import interpolated
from model import LanguageModel
from pretrain import factor
from retention_rules import LORA_ALPHA, PROJECTIONS, RULES, WRITTEN

ROWS, LENGTH, STEPS, WARMUP = 8, 256, 100, 10
HOME_STEPS, HOME_ROWS, HOME_RATE = 2400, 16, 0.01
HELD_OUT_ROWS, HELD_OUT_SEED = 64, 2**31
CARD_ROWS = 48
DOMAINS = {"irc": "chat_irc", "peps": "tech_peps", "legal": "legal_sitepolicy"}
SUFFIXES = (".txt", ".rst", ".md")


class Reader(LanguageModel):
    """The benchmarks' model, giving logits."""

    def forward(self, tokens: Tensor) -> Tensor:  # (rows, length, vocabulary)
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embed.weight)


def loss_of(model: Reader, tokens: Tensor) -> Tensor:
    """Mean loss in nats per byte."""
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def folder_text(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out bytes; joins and parts of chats are no text, and of a single file the last part is held out."""
    files = [p for p in sorted(folder.rglob("*")) if p.suffix in SUFFIXES and p.name.isascii() and _is_text(p)]
    texts = [_plain(path) for path in files]
    held_out = texts[:: text.VALIDATION_PART]
    training = [each for index, each in enumerate(texts) if index % text.VALIDATION_PART]
    return np.concatenate(training), np.concatenate(held_out)


def _is_text(path: Path) -> bool:
    return not any(word in path.name for word in ("LICENSE", "README", "SOURCE", "annotation", "tok", "FILES"))


def _plain(path: Path) -> np.ndarray:
    lines = path.read_text(encoding="utf-8", errors="replace").replace("\r", "").split("\n")
    kept = "\n".join(line for line in lines if not line.startswith("==="))
    return np.frombuffer(kept.encode(), dtype=np.uint8)


def rows(data: np.ndarray, count: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(text.rows(data, count, LENGTH, rng))


@torch.no_grad()
def own_rows(model: Reader, count: int, seed: int, temperature: float = 1.0, letters: bool = False) -> Tensor:
    """Text that the model writes, beginning with a line break, or with a small letter drawn for each row."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((count, 1), ord("\n"))
    if letters:
        tokens = torch.randint(ord("a"), ord("z") + 1, (count, 1), generator=generator)
    while tokens.shape[1] < LENGTH:
        probabilities = (model(tokens)[:, -1] / temperature).softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(probabilities, 1, generator=generator)], dim=1)
    return tokens


def adapted(model: Reader, rank: int, seed: int) -> Reader:
    """The model with fresh adapters in every matrix, which alone are trainable."""
    torch.manual_seed(seed)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=LORA_ALPHA, target_modules=PROJECTIONS), model)
    return model


def fit(
    model: Reader, optimizer: torch.optim.Optimizer, batches: list[Tensor], warmup: int, clip: float = 1.0
) -> float:
    """Trains on the batches, with gradients clipped to a norm; seconds."""
    rates, begun = [group["lr"] for group in optimizer.param_groups], time.perf_counter()
    for step, tokens in enumerate(batches):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(step, len(batches), warmup, constant=False)
        loss_of(model, tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - begun


def home_model(path: Path, novels: np.ndarray) -> Reader:
    """The model that knows novels; trained when it is not there yet."""
    torch.manual_seed(0)
    model = Reader()
    if not path.exists():
        rng = np.random.default_rng(0)
        batches = [rows(novels, HOME_ROWS, rng) for _ in range(HOME_STEPS)]
        fit(model, CEGM(model, lr=HOME_RATE, aux_lr=0.003), batches, 100)
        torch.save(model.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def rotated(made: ContextCard) -> ContextCard:
    """The same spectra in directions drawn at random."""
    generator = torch.Generator().manual_seed(0)
    turned: dict[int, Spectrum] = {}
    for entry in made.contexts.values():
        if id(entry) not in turned:
            noise = torch.randn(entry.width, entry.width, generator=generator)
            turned[id(entry)] = entry._replace(
                vectors=torch.linalg.qr(noise).Q[:, : entry.values.shape[-1]].contiguous()
            )
    contexts = {name: turned[id(entry)] for name, entry in made.contexts.items()}
    return ContextCard(contexts, made.demands, made.samples, made.homes)


def exchanged(made: ContextCard) -> ContextCard:
    """Every layer with the contexts of the next block."""
    blocks = max(int(name.split(".")[1]) for name in made.contexts) + 1
    other = {
        name: ".".join(["blocks", str((int(name.split(".")[1]) + 1) % blocks), *name.split(".")[2:]])
        for name in made.contexts
    }
    return ContextCard({n: made.contexts[other[n]] for n in other}, made.demands, made.samples, made.homes)


def lines_of(name: str) -> dict[str, float]:
    """The lines of a run of this rule, each with the share of the trained weights in what it measures."""
    mixes = RULES[name].get("mixes")
    return {name: 1.0} if mixes is None else {f"{name}_{round(100 * mix)}": mix for mix in mixes}


class Bench:
    """The model that knows its home, texts, and cards made when first asked for."""

    def __init__(self, data: Path, kept: Path, domain: str) -> None:
        self.novels, self.novels_held_out = folder_text(data / "general_novels")
        self.new, self.new_held_out = folder_text(data / DOMAINS[domain])
        self.model = home_model(kept, self.novels)
        _, general = (_plain(p) for p in sorted((data / "wikitext2_eval").rglob("*.txt"))[::-1][:2])
        rng = np.random.default_rng(HELD_OUT_SEED)
        held_out = {"new": self.new_held_out, "home": self.novels_held_out, "general": general}
        self.held_out = {name: rows(each, HELD_OUT_ROWS, rng) for name, each in held_out.items()}
        self.own_held_out = own_rows(self.model, 32, HELD_OUT_SEED)
        self.before = self.losses(self.model)
        self._cards: dict[tuple[str, float, int, bool], ContextCard] = {}
        self._fishers: dict[str, dict[str, Tensor]] = {}

    @torch.no_grad()
    def losses(self, model: Reader) -> dict[str, float]:
        found = {name: float(loss_of(model, tokens)) for name, tokens in self.held_out.items()}
        old, new = (m(self.own_held_out).log_softmax(-1) for m in (self.model, model))
        return {**found, "divergence": float((old.exp() * (old - new)).sum(-1).mean())}

    def text(self, kind: str, count: int = CARD_ROWS) -> Tensor:
        """Rows for a card or a Fisher diagonal."""
        if kind in WRITTEN:
            return own_rows(self.model, count, 1, **WRITTEN[kind])
        return rows({"home": self.novels, "new": self.new}[kind], count, np.random.default_rng(1))

    def fisher(self, kind: str) -> dict[str, Tensor]:
        if kind not in self._fishers:
            self._fishers[kind] = diagonal_fisher(self.model, self.text(kind))
        return self._fishers[kind]

    def card(self, kind: str, share: float = 1.0, count: int = CARD_ROWS, demands: bool = False) -> ContextCard:
        key = (kind, share, count, demands)
        if key not in self._cards:
            if kind in ("rotated", "exchanged"):
                self._cards[key] = {"rotated": rotated, "exchanged": exchanged}[kind](self.card("own", share))
            else:
                batches = self.text(kind, count).split(16)
                self._cards[key] = card(self.model, batches, share=share, demands=demands, home={"text": kind})
        return self._cards[key]

    def optimizer(
        self, model: Reader, rule: dict[str, Any], rate: float, extra: dict[str, Any]
    ) -> torch.optim.Optimizer:
        options = {"weight_decay": 0.0, "aux_lr": 0.0, **rule["options"], **extra}
        if "null" in rule:
            begin_in_null_space(model, self.card(rule["null"]))
        if "card" in rule:
            about = {name: rule[name] for name in ("share", "count", "demands") if name in rule}
            options["retain"] = self.card(rule["card"], **about)
        if "fisher" in rule:
            options["retain"] = self.fisher(rule["fisher"])
        return build_optimizer(rule.get("method", "cegm"), model, lr=rate, **options)

    def run(self, name: str, rate: float, seed: int, extra: dict[str, Any]) -> list[dict[str, Any]]:
        """What came out, for every line of the rule."""
        rule, model = RULES[name], copy.deepcopy(self.model).train()
        if "lora" in rule:
            model = adapted(model, rule["lora"], seed)
        rng = np.random.default_rng(seed)
        batches = [rows(self.new, ROWS, rng) for _ in range(STEPS)]
        for tokens in batches if rule.get("replay") else ():
            old = int((rng.random(ROWS) < rule["replay"]).sum())
            tokens[:old] = rows(self.novels, old, rng)
        seconds = fit(model, self.optimizer(model, rule, rate, extra), batches, WARMUP)
        found, trained = [], copy.deepcopy(model.eval().state_dict())
        for mix in lines_of(name).values():
            if mix < 1:
                model.load_state_dict(interpolated(self.model.state_dict(), trained, mix))
            after = self.losses(model)
            found.append({**after, "forgotten": after["home"] - self.before["home"], "seconds": round(seconds, 2)})
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--domains", default=",".join(DOMAINS))
    parser.add_argument("--rates", default="", help="in place of the rule's own")
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE for every rule, kept in the log")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    extra = {name: json.loads(value) for name, value in (each.split("=", 1) for each in options.option)}
    lines = options.output.read_text(encoding="utf-8").splitlines() if options.output.exists() else []
    known = ("domain", "rule", "rate", "seed", "extra")
    done = {tuple(json.dumps(json.loads(line)[key]) for key in known) for line in lines}
    for domain in options.domains.split(","):
        bench = Bench(options.data, options.output.parent / "home_model.pt", domain)
        print(f"{domain}: before {bench.before}", flush=True)
        for seed in map(int, options.seeds.split(",")):
            for name in options.rules.split(","):
                rates = [float(rate) for rate in options.rates.split(",")] if options.rates else RULES[name]["rates"]
                for rate in rates:
                    keys = [dict(zip(known, (domain, line, rate, seed, extra), strict=True)) for line in lines_of(name)]
                    if all(tuple(map(json.dumps, key.values())) in done for key in keys):
                        continue
                    for key, found in zip(keys, bench.run(name, rate, seed, extra), strict=True):
                        line = {**key, "before": bench.before, **found}
                        with options.output.open("a", encoding="utf-8") as log:
                            log.write(json.dumps(line) + "\n")
                        told = f"new {line['new']:.3f} forgotten {line['forgotten']:.3f}"
                        print(f"{domain} {line['rule']} {rate:g} seed {seed}: {told}", flush=True)


if __name__ == "__main__":
    main()

"""Reads the logs of lora.py: what every rule learnt with the rate that was best for it on the tuning seed."""

from __future__ import annotations

from typing import Any

from logs import lines, markdown

TUNING_SEED, TEST_SEEDS, SCALED_SEED = 1000, (0, 1), 0
SCALES = (0.125, 8.0)

Line = dict[str, Any]


def best(runs: list[Line], domain: str, rule: str) -> float:
    """The rate with the lowest loss on the tuning seed."""
    tuned = [line for line in runs if (line["domain"], line["rule"], line["seed"]) == (domain, rule, TUNING_SEED)]
    return float(min(tuned, key=lambda line: line["new"])["rate"])


def adapters() -> str:
    """Loss on held-out new text by text and rule, of rules that were tested."""
    unclipped = [{**line, "domain": "irc, unclipped"} for line in lines("lora/irc_unclipped.jsonl")]
    return table([*lines("lora/irc.jsonl"), *lines("lora/legal.jsonl"), *unclipped])


def table(runs: list[Line]) -> str:
    """The same of the lines of a log."""
    found = {tuple(line[name] for name in ("domain", "rule", "rate", "seed", "scale")): line["new"] for line in runs}
    columns = [(seed, 1.0) for seed in TEST_SEEDS] + [(SCALED_SEED, scale) for scale in SCALES]
    body = []
    for domain, rule in dict.fromkeys((line["domain"], line["rule"]) for line in runs):
        rate = best(runs, domain, rule)
        losses = [found.get((domain, rule, rate, *column)) for column in columns]
        if any(losses):
            shown = ("" if loss is None else f"{loss:.3f}" for loss in losses)
            body.append([domain, f"`{rule}`", f"{rate:g}", *shown])
    names = [f"seed {seed}" + (f", `A` times {scale:g}" if scale != 1 else "") for seed, scale in columns]
    return markdown(["new text", "rule", "rate", *names], body)

"""Reads logs of retention.py: what every rule forgot at equal new loss, beside what AdamW forgot.

    python benchmarks/retention_front.py benchmarks/results/retention/*.jsonl

Ratios are over AdamW's, read and paired as `cegm compare --front` does (`cegm.lab.compare.fronts`); where one of both forgot
nothing there is no ratio, and the difference stands with its sign, in nats. A dash where rates do not reach to both sides.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from cegm.columns import aligned
from cegm.lab.compare.fronts import SHARES, Ending, entry
from logs import estimate, lines, markdown

REFERENCE = "adamw"
MEASURES = ("forgotten", "general", "divergence")
LOGS = {"chats": "irc", "terms": "legal"}
SHOWN = (0.75, 0.9)
"""Shares of AdamW's gain in the table of docs/retention.md."""

TITLES = {
    "adam_own": "`finetune` with a card of own text",
    "replay_5": "AdamW, 5 % of all rows home text",
    "l2_sp_10": "L2-SP at a pull of 10",
    "muon": "Muon",
    "muon_own": "Muon with the card",
    "muon_rotated": "control: directions turned at random, two rates",
    "muon_exchanged": "control: cards of the next block",
    "muon_new": "control: contexts of the new text",
}

Line = dict[str, Any]


def entries(lines: list[Line], measure: str) -> dict[str, list[dict[str, Any]]]:
    """By rule, its readings against AdamW at every share of AdamW's gain, over the seeds that both have."""
    fronts: dict[tuple[str, int], list[Ending]] = defaultdict(list)
    for line in lines:
        level = line["before"]["general"] if measure == "general" else 0.0
        fronts[line["rule"], line["seed"]].append(Ending(line["rate"], line["new"], line[measure] - level))
    before = {line["seed"]: line["before"]["new"] for line in lines}
    rules = dict.fromkeys(line["rule"] for line in lines)
    return {rule: [entry(fronts, before, (rule, REFERENCE), share, True) for share in SHARES] for rule in rules}


def cell(found: dict[str, Any]) -> str:
    """A ratio as a number, a difference with its sign."""
    if found["effect"] is None:
        return "-"
    return f"{found['effect']:.2f}" if found["kind"] == "ratio" else f"{found['effect']:+.3f}"


def retention() -> str:
    """What rules forgot over AdamW's by text and measure, as docs/retention.md shows it; intervals where seeds allow."""
    columns = {}
    for text, log in LOGS.items():
        runs = lines(f"retention/{log}.jsonl")
        for measure, title in (("forgotten", "novels"), ("divergence", "own text")):
            columns[f"{text}: {title}"] = entries(runs, measure)
    body = []
    for rule, title in TITLES.items():
        found = [[each for each in read.get(rule, []) if each["share"] in SHOWN] for read in columns.values()]
        seeds = max(each["n"] for column in found for each in column)
        body.append([title, *(" and ".join(map(shown, column)) for column in found), str(seeds)])
    return markdown(["rule", *columns, "seeds, chats"], body)


def shown(found: dict[str, Any]) -> str:
    """A ratio with its interval, if it has one."""
    return "-" if found["effect"] is None else estimate(found["effect"], found["interval"], ".2f")


def main() -> None:
    lines = [json.loads(line) for path in sys.argv[1:] for line in Path(path).read_text(encoding="utf-8").splitlines()]
    for domain in dict.fromkeys(line["domain"] for line in lines):
        mine = [line for line in lines if line["domain"] == domain]
        seeds = sorted({line["seed"] for line in mine})
        for measure in MEASURES:
            print(f"{domain}, {measure} over AdamW's at equal new loss, seeds {seeds}")
            rows = [["rule", *(f"{share:.0%}" for share in SHARES)]]
            rows += [[rule, *map(cell, found)] for rule, found in entries(mine, measure).items()]
            print("\n".join(aligned(rows, {0})) + "\n")


if __name__ == "__main__":
    main()

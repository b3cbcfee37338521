"""What the parts of the method bring and cost, from the committed logs: axes, milliseconds, controls."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

import growth
from cegm.lab.report import style
from logs import LOGS, arm, estimate, lines, load, markdown, number, pair, typeset, verdict

CONTROLS = (
    ("no context (`p = q = 0`)", {"gradient_power": 0}),
    ("no context, no row moment (Muon's update)", {"gradient_power": 0, "row_moment": False}),
    ("random scores", {"scores": "random"}),
    ("shuffled gradient scores", {"scores": "shuffled"}),
)


def primary(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The measures on which a verdict's words rest."""
    return [measure for measure in found["measures"].values() if measure["family"] == "primary"]


def measure_title(measure: dict[str, Any]) -> str:
    return measure["title"] + (", bits per byte (lower is better)" if measure["unit"] == "bits per byte" else "")


def axis_table(found: dict[str, Any]) -> str:
    """Every primary measure of AdamW, Muon and CEGM, and CEGM against both."""
    methods = ("adamw", "muon", "cegm")
    header = ["axis", *map(style.name, methods), "CEGM minus Muon", "word", "CEGM minus AdamW", "word"]
    rows = []
    for measure in primary(found):
        digits = 4 if measure["better"] == "lower" else 3
        row = [measure_title(measure), *(f"{measure['methods'][method]['mean']:.{digits}f}" for method in methods)]
        for other in ("muon", "adamw"):
            met = pair(measure, "cegm", other)
            word = met["word"] if met["word"] == "no evidence" else f"**{met['word']}**"
            row += [estimate(met["effect"], met["interval"]), word]
        rows.append(row)
    return markdown(header, rows)


def pair_table(found: dict[str, Any], methods: tuple[str, str]) -> str:
    """Every primary measure of one pair."""
    rows = []
    for measure in primary(found):
        met = pair(measure, *methods)
        rows.append([measure_title(measure), estimate(met["effect"], met["interval"]), met["word"]])
    return markdown(["axis", "difference", "word"], rows)


def axis_numbers() -> dict[str, str]:
    """How many axes came out how, what they took, and what the row of contexts of inputs cost."""
    found, runs = verdict("axes"), pd.read_csv(LOGS / "axes/results.csv")
    axes = [measure for measure in primary(found) if measure["name"] != "bits_per_byte"]
    words = pd.Series([pair(measure, "cegm", "adamw")["word"] for measure in axes]).value_counts()
    examined = [sum(axis["seconds"] for axis in json.loads(row).values()) for row in runs["axes"]]
    pace = pair(verdict("axes_power")["measures"]["step_time"], "cegm", "normuon")
    return {
        "better": str(words["better"]),
        "worse": str(words["worse"]),
        "count": str(len(axes)),
        "comparisons": str(sum(len(measure["pairs"]) for measure in primary(found))),
        "runs": str(len(runs)),
        "minutes": f"{runs['seconds'].sum() / 60:.0f}",
        "examination": f"{sum(examined) / 60:.0f}",
        "power_time": estimate(pace["effect"], pace["interval"], ".2f"),
    }


def beyond_loss() -> str:
    """What an axis shows beside what its loss explains."""
    table = pd.read_csv(LOGS / "axes/beyond_loss.csv")
    rows = [
        [row.axis, number(row.difference), number(row.explained_by_loss), estimate(row.rest, (row.low, row.high))]
        for row in table[table["pair"] == "cegm - muon"].itertuples()
    ]
    return markdown(["axis", "CEGM minus Muon", "explained by loss", "the rest"], rows)


def step_log() -> tuple[dict[str, Any], dict[str, Any]]:
    """Muon's and CEGM's part of the log of a training step."""
    methods = lines("step_cost/cpu.jsonl")[0]["methods"]
    return methods["muon"], methods["cegm"]


def step() -> str:
    """Milliseconds of a step, by part; refreshes spread over the steps between two."""
    muon, cegm = step_log()
    parts = {
        "forward and backward pass": lambda own: own["parts"]["forward_backward"],
        "update": lambda own: own["parts"]["step"],
        "refreshes, spread": lambda own: (
            (own["parts"].get("capture", 0) + own["parts"].get("refresh", 0)) / own["refresh_every"]
        ),
        "whole step": lambda own: own["seconds_per_step"],
    }
    rows = []
    for name, of in parts.items():
        theirs, ours = 1e3 * of(muon), 1e3 * of(cegm)
        rows.append([name, f"{theirs:.0f}", f"{ours:.0f}", number(ours - theirs, "+.0f")])
    bytes_each = [own["state_bytes_per_matrix_weight"] for own in (muon, cegm)]
    row = ["state, bytes per matrix weight", *(f"{each:.1f}" for each in bytes_each)]
    rows.append([*row, number(bytes_each[1] - bytes_each[0], "+.1f")])
    return markdown(["milliseconds", "Muon", "CEGM", "difference"], rows)


def step_numbers() -> dict[str, str]:
    """CEGM's whole step over Muon's."""
    middle, low, high = step_log()[1]["ratio_to_muon"]
    return {"ratio": estimate(middle, (low, high), ".3f")}


def growth_table() -> str:
    """Exponents of the cost of a token, as `growth.py` makes them."""
    curves = growth.curves(lines("step_cost/growth.jsonl"))
    rng = np.random.default_rng(0)
    rows = []
    for axis, curve in curves.items():
        muon, cegm = (growth.exponent(curve, axis, method, rng) for method in ("muon", "cegm"))
        row = [muon["axis"], str(muon["from"]), str(muon["to"])]
        rows.append([*row, *(typeset(own[name]) for own in (muon, cegm) for name in ("measured", "arithmetic"))])
    return markdown(["axis", "from", "to", "Muon, measured", "predicted", "CEGM, measured", "predicted"], rows)


def arm_effect(found: dict[str, Any], form: str = "+.3f") -> str:
    """Change minus base with its interval."""
    difference = found["difference"]
    return estimate(difference["estimate"], (difference["low"], difference["high"]), form)


def controls() -> str:
    """One control at a time against the former preset, on two texts."""
    novels, world = (load(f"confirmation/{text}/effects.json") for text in ("novels", "world"))
    rows = [[title, *(arm_effect(arm(text, changes)) for text in (novels, world))] for title, changes in CONTROLS]
    return markdown(["control, minus the preset", "novels", "generated world"], rows)


def coefficient() -> str:
    """Coefficients beside .1, on each text."""
    novels, world = load("coefficient/novels/effects.json"), load("confirmation/world/effects.json")
    rows = []
    for text, effects, values in (("novels", novels, (0.05, 0.2)), ("generated world", world, (0.2,))):
        for value in values:
            found = arm(effects, {"entanglement": value})
            base = effects["base"]["losses"]
            each = [number(loss - base[seed]) for seed, loss in found["losses"].items()]
            shown = arm_effect(found) if len(each) > 2 else number(found["difference"]["estimate"])
            rows.append([text, f"{value:g}", shown, ", ".join(each)])
    return markdown(["text", "coefficient", "minus .1", "on each seed"], rows)


def ablation_numbers() -> dict[str, str]:
    """How large the ablation was, and its only large effect."""
    effects = load("ablation/effects.json")
    paper = arm(effects, {"preset": "paper"})
    return {
        "changes": str(len(effects["arms"])),
        "parts": str(len(effects["parts"])),
        "runs": str(len(lines("ablation/plan.jsonl"))),
        "seeds": str(len(effects["seeds"])),
        "paper": arm_effect(paper),
        "better": str(sum(each["word"] == "better" for each in effects["arms"])),
    }

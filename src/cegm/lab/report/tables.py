"""The tables of the page as rows of text: verdict, methods, configuration, pairing and runs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cegm.lab.report import style, words
from cegm.lab.report.folder import Folder, Record, Run, finite
from cegm.lab.report.judged import Judged

LONGEST_TEXT = 400
"""Characters of an error or a configuration value that are shown; the folder has the rest."""

NOT_COMPARED = ("method", "seed", "output_dir", "resume_from_checkpoint", "progress")

MEANS = {
    "bits_per_byte": ("Loss", "bits per byte"),
    "retention": ("Recall", "mean over lengths"),
    "equal_seconds": ("Loss at equal seconds", "bits per byte"),
    "steps_to_target": ("Steps to AdamW's loss", ""),
    "step_time": ("Step time", ""),
    "memory": ("Peak memory", ""),
    "optimizer_state": ("Optimizer state", ""),
}
"""Heading and unit of each measure in the table of means, in its order."""

SHARED_MACHINE = "step_time"
"""The measure whose ratios come from runs that share the machine; only steps in turns give one that is shown."""


@dataclass(frozen=True)
class Setting:
    """One line of the configuration: its value for each method, and whether they differ."""

    name: str
    values: list[str]

    @property
    def differs(self) -> bool:
        """Whether the methods were given different values."""
        return len(set(self.values)) > 1


def verdict_rows(verdict: Record) -> list[Record]:
    """One row per measure and pair, but for the ratio of times of runs that shared a machine."""
    rows = []
    for measure in verdict["measures"]:
        if measure["name"] == SHARED_MACHINE:
            continue
        for index, entry in enumerate(measure["pairs"]):
            first, second = (style.name(method) for method in entry["pair"])
            measured, smallest = entry["effect"] is not None, entry["smallest_detectable"]
            rows.append(
                {
                    "measure": measure["title"],
                    "span": len(measure["pairs"]) if index == 0 else 0,
                    "note": f"{words.effect_unit(measure)}; {measure['better']} is better; {measure['family']}",
                    "pair": f"{first} against {second}",
                    "effect": words.effect(measure, entry["effect"]) if measured else "not measured",
                    "interval": words.NONE if entry["p"] is None else words.spread(measure, entry),
                    "p": p_value(entry["p"]),
                    "p_holm": p_value(entry["p_holm"]),
                    "n": entry["n"],
                    "smallest": words.NONE if smallest is None else words.effect(measure, smallest).lstrip("+"),
                    "word": entry["word"] if measured else words.NONE,
                    "failed": _failures(entry["failed"]),
                    "method": entry["method"] or "",
                }
            )
    return rows


def method_rows(folder: Folder) -> list[Record]:
    """One row per method: the mean of every measure."""
    measures = {m["name"]: m for m in folder.verdict["measures"]} if folder.verdict else {}
    rows = []
    for method in folder.methods:
        runs = [run for run in folder.runs if run.method == method]
        cells = [
            words.value(name, measures.get(name, {}).get("methods", {}).get(method, {}).get("mean")) for name in MEANS
        ]
        steps = measures.get("steps_to_target", {}).get("methods", {}).get(method, {}).get("values", {})
        cells[list(MEANS).index("steps_to_target")] = words.steps(list(steps.values()))
        finished = sum(run.status == "finished" for run in runs)
        rows.append({"method": style.name(method), "runs": f"{finished} of {len(runs)}", "cells": cells})
    return rows


def settings(folder: Folder) -> tuple[list[str], list[Setting]]:
    """Methods and their resolved settings (first main run of each), those that differ first."""
    runs = [
        next((r for r in folder.runs if r.method == m and r.role == "main" and r.config), None) for m in folder.methods
    ]
    present = [run for run in runs if run is not None]
    flat = [{**_flat(run.config.get("config") or {}), **_facts(run)} for run in present]
    names = list(dict.fromkeys(name for one in flat for name in one if name not in NOT_COMPARED))
    rows = [Setting(name, [one.get(name, words.NONE) for one in flat]) for name in names]
    return [style.name(run.method) for run in present], sorted(rows, key=lambda row: not row.differs)


def _facts(run: Run) -> dict[str, str]:
    """What the run folder says beside the configuration: versions, hashes of data and code, sizes, hardware."""
    sections = {key: run.config.get(key) for key in ("model", "tokens", "versions", "hashes", "hardware", "threads")}
    facts = _flat({key: value for key, value in sections.items() if value is not None})
    return {name: value for name, value in facts.items() if name != "hashes.initial_weights"}  # differs by seed


def _flat(values: Record, prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and text."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = shortened("none" if value is None else str(value))
    return flat


def pairing_rows(folder: Folder) -> list[Record]:
    """By seed: hashes of initial weights and batches of every method, and whether they agree."""
    rows = []
    for seed in sorted({run.seed for run in folder.finished()}):
        runs = {run.method: run.result for run in folder.finished() if run.seed == seed}
        for key, title in (("initial_hash", "initial weights"), ("batch_hash", "batches")):
            hashes = [str(runs[m].get(key) or "")[:12] if m in runs else words.NONE for m in folder.methods]
            known = {runs[m].get(key) for m in runs}
            rows.append({"seed": seed, "what": title, "hashes": hashes, "agree": len(known) == 1 and None not in known})
    return rows


def run_rows(folder: Folder) -> list[Record]:
    """Every run, whatever became of it."""
    rows = []
    for run in folder.runs:
        result = run.result
        seconds, tokens = finite(result.get("seconds")), finite(result.get("tokens"))
        loss, memory = finite(result.get("bits_per_byte")), finite(result.get("memory_bytes"))
        rows.append(
            {
                "name": run.name,
                "method": style.name(run.method),
                "seed": run.seed,
                "role": run.role.replace("_", " "),
                "status": run.status,
                "error": shortened(run.error or "no error message") if run.status == "failed" else "",
                "attempts": result.get("attempts", words.NONE),
                "steps": words.value("steps", finite(result.get("steps"))),
                "skipped": _counted(result.get("skipped_steps")),
                "spikes": _counted(result.get("spikes")),
                "loss": words.value("bits_per_byte", loss),
                "seconds": words.NONE if seconds is None else f"{seconds:,.1f}",
                "speed": words.NONE if not seconds or tokens is None else f"{tokens / seconds:,.0f}",
                "memory": words.NONE if memory is None else f"{memory / 2**20:,.0f}",
            }
        )
    return rows


def _counted(number: object) -> str:
    """A whole number; runs from before it was counted have none."""
    return f"{number:,}" if isinstance(number, int) else words.NONE


def checkpoint_rows(verdict: Record) -> list[list[str]]:
    """McNemar's test of the subject's checkpoint against another method's, by axis and seed."""
    subject = Judged(verdict).subject
    return [
        [
            measure["title"],
            f"{style.name(entry['pair'][0])} against {style.name(entry['pair'][1])}",
            str(test["seed"]),
            f"{test['first_only']:,}",
            f"{test['second_only']:,}",
            p_value(test["p"]),
        ]
        for measure in verdict["measures"]
        for entry in measure["pairs"]
        for test in entry.get("mcnemar") or ()
        if entry["pair"][0] == subject
    ]


def facts(folder: Folder) -> list[tuple[str, str]]:
    """What was trained, on what, in a few words each."""
    run = next((run for run in folder.runs if run.config), None)
    if run is None:
        return []
    config, model, tokens = (run.config.get(key) or {} for key in ("config", "model", "tokens"))
    finished = folder.finished()
    told: list[tuple[str, Any]] = [
        ("Model", config.get("model_name_or_path")),
        ("Parameters", words.value("count", finite(model.get("parameters")))),
        ("Data", config.get("data")),
        (
            "Training tokens per run",
            words.value("count", fmean(r.result["tokens"] for r in finished)) if finished else None,
        ),
        ("Validation tokens", words.value("count", finite(tokens.get("validation")))),
        ("Trained length", config.get("max_length")),
        ("Seeds", ", ".join(str(seed) for seed in sorted({r.seed for r in folder.runs}))),
        ("Hardware", run.config.get("hardware")),
    ]
    return [(name, shortened(str(text))) for name, text in told if text not in (None, words.NONE)]


def shortened(text: str) -> str:
    """The text, cut at `LONGEST_TEXT` characters."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."


def _failures(failed: list[Record]) -> list[str]:
    """Failed seeds by method, such as "Muon seed 2"."""
    seeds: dict[str, list[str]] = {}
    for run in failed:
        seeds.setdefault(style.name(run["method"]), []).append(str(run["seed"]))
    return [f"{method} seed{'s' * (len(own) > 1)} {', '.join(own)}" for method, own in seeds.items()]


def p_value(value: float | None) -> str:
    """A p-value as a table shows it."""
    return words.NONE if value is None else f"{value:.3f}" if value >= 0.001 else "< 0.001"

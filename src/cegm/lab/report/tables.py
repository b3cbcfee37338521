"""What the tables of the page hold that is not read off as it stands: means by method, settings, and fingerprints."""

from __future__ import annotations

from cegm.lab.report import style, words
from cegm.lab.report.runs import Folder, Record, Run

NOT_COMPARED = ("method", "seed", "output_dir", "resume_from_checkpoint", "progress")
MEANS = ("bits_per_byte", "retention", "equal_seconds", "steps_to_target", "step_time", "memory", "optimizer_state")
"""Measures in the order of the columns of the table of means."""


def method_rows(folder: Folder) -> list[list[str]]:
    """A row per method: its name, how many of its runs finished, and the mean of every measure."""
    measures = {m["name"]: m["methods"] for m in folder.verdict["measures"]} if folder.verdict else {}
    rows = []
    for method in folder.methods:
        runs = [run.status == "finished" for run in folder.runs if run.method == method]
        own = {name: measures.get(name, {}).get(method, {}) for name in MEANS}
        cells = {name: words.value(name, found.get("mean")) for name, found in own.items()}
        cells["steps_to_target"] = words.steps(list(own["steps_to_target"].get("values", {}).values()))
        rows.append([style.name(method), f"{sum(runs)} of {len(runs)}", *cells.values()])
    return rows


def settings(folder: Folder) -> tuple[list[str], dict[str, list[str]]]:
    """Methods and their resolved settings (first main run of each) by name, a dash where a method has no such."""
    runs = {run.method: run for run in reversed(folder.runs) if run.role == "main" and run.config}
    methods = [method for method in folder.methods if method in runs]
    flat = [{**_flat(runs[method].config.get("config") or {}), **_facts(runs[method])} for method in methods]
    names = dict.fromkeys(name for one in flat for name in one if name not in NOT_COMPARED)
    return words.names(methods), {name: [one.get(name, words.NONE) for one in flat] for name in names}


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
            flat[f"{prefix}{name}"] = words.shortened("none" if value is None else str(value))
    return flat


def pairing_rows(folder: Folder) -> list[Record]:
    """By seed: hashes of initial weights and batches of every method, and whether they agree."""
    rows = []
    for seed in sorted({run.seed for run in folder.finished()}):
        runs = {run.method: run.result for run in folder.finished() if run.seed == seed}
        for what in ("initial_hash", "batch_hash"):
            hashes = [str(runs[m].get(what) or "")[:12] if m in runs else words.NONE for m in folder.methods]
            known = {result.get(what) for result in runs.values()}
            rows.append({"seed": seed, "what": what, "hashes": hashes, "agree": len(known) == 1 and None not in known})
    return rows

"""The verdict on fronts: who forgets less of what at equal new loss. `write_front` turns a comparison folder into `front.json`.

It holds `reference`, `methods`, `shares`, `seeds`, `rates` (by method), `before` (new loss by seed before training), `endings`, one per
run with `method`, `rate`, `seed`, `new` loss in nats per token and what was `forgotten` by measure, or `error` in place of both, and
`measures`: shaped as those of `verdict.json`, but a pair stands there once per `share`, with a `kind` of effect of its own
(docs/verdict.md). A measure is something that was known before: text that the model wrote itself, a public set, or a general corpus,
with the methods whose cards have `seen` it.

The rules are those of `cegm.lab.compare.verdict`: words, families, and what losing a seed means.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from cegm.durable import write_whole
from cegm.lab.baselines import REFERENCE, ordered
from cegm.lab.compare.arms import READ
from cegm.lab.compare.compare_config import FORGETTING
from cegm.lab.compare.fronts import SHARES, Ending, entry
from cegm.lab.compare.measures import Measure, about
from cegm.lab.compare.pairing import refusal
from cegm.lab.compare.plan import BEFORE, PlannedRun, read_plan
from cegm.lab.compare.seed_statistics import CLAIM_SEEDS
from cegm.lab.compare.verdict import adjust, read_curves, word
from cegm.lab.records import Before
from cegm.lab.report.runs import FRONT
from cegm.lab.strict import json_object, parquet_table
from cegm.lab.tasks.forgetting import OWN, SETS
from cegm.lab.train.cards import texts_seen
from cegm.lab.train.folder import RunFolder

TITLES = {OWN: "the model's own text", **dict(zip(SETS, ("LAMBADA", "Winograd schemas", "BLiMP"), strict=True))}
"""Of measures that are no corpus, as people call what was forgotten."""


def write_front(folder: Path) -> Path:
    """Reads what the runs of a comparison learned and forgot, and writes `front.json` into it in one move."""
    runs = [run for run in read_plan(folder) if run.role in ("main", "front")]
    endings = _endings(folder, runs)
    losses = read_curves(folder).query("step == 0").set_index("id")["loss"]
    before = {run.seed: float(losses[run.id]) for run in runs if run.method == REFERENCE and run.id in losses.index}
    found = judge_fronts(endings, before)
    seen = _seen(folder, runs)
    for measure in found["measures"]:
        measure["seen"] = seen.get(measure["name"], [])
    return write_whole(folder / FRONT, json.dumps(found, indent=1, allow_nan=False))


def judge_fronts(endings: list[dict[str, Any]], before: dict[int, float]) -> dict[str, Any]:
    """The content of `front.json` but for what cards have seen, from how every run ended and the new loss before by seed."""
    methods = ordered(each["method"] for each in endings)
    names = {name for each in endings for name in each.get("forgotten", ())}
    declared = [_measure(name) for name in sorted(names, key=lambda name: (name != OWN, name in SETS, name))]
    measures = [{**about(each), "pairs": _entries(each, endings, before, methods)} for each in declared]
    adjust(measures)
    strict = len({each["seed"] for each in endings}) >= CLAIM_SEEDS
    for measure, judged in zip(declared, measures, strict=True):
        for pair in judged["pairs"]:
            pair["word"] = word(replace(measure, kind=pair["kind"]), pair, strict)
    rates: dict[str, list[float]] = {method: [] for method in methods}
    for each in endings:
        rates[each["method"]].append(each["rate"])
    return {
        "reference": REFERENCE,
        "methods": methods,
        "shares": list(SHARES),
        "rates": {method: sorted(set(own)) for method, own in rates.items()},
        "seeds": sorted({each["seed"] for each in endings}),
        "before": {str(seed): loss for seed, loss in before.items()},
        "endings": endings,
        "measures": measures,
    }


def _measure(name: str) -> Measure:
    """What is known of what was forgotten; text of its own is always there, and so the one that is declared primary."""
    unit, kind = ("accuracy", "difference") if name in SETS else ("nats per token", "ratio")
    family = "primary" if name == OWN else "exploratory"
    return Measure(name, TITLES.get(name, name), unit, "lower", kind, family, name)  # type: ignore[arg-type]


def _entries(
    measure: Measure, endings: list[dict[str, Any]], before: dict[int, float], methods: list[str]
) -> list[dict[str, Any]]:
    """Every method against the reference at every share."""
    fronts: dict[tuple[str, int], list[Ending]] = defaultdict(list)
    for each in endings:
        if measure.name in each.get("forgotten", ()):
            ending = Ending(each["rate"], each["new"], each["forgotten"][measure.name])
            fronts[each["method"], each["seed"]].append(ending)
    failed = [{"method": each["method"], "seed": each["seed"]} for each in endings if "error" in each]
    return [
        {**entry(fronts, before, (method, REFERENCE), share, measure.kind == "ratio"), "failed": own}
        for method in methods
        if method != REFERENCE
        for own in [[each for each in failed if each["method"] in (method, REFERENCE)]]
        for share in SHARES
    ]


def _endings(folder: Path, runs: list[PlannedRun]) -> list[dict[str, Any]]:
    """How every run ended; one that began or read otherwise than the reference, and was not meant to, counts as failed."""
    results = {row["id"]: row for row in parquet_table(folder / "results.parquet").to_dict("records")}
    items = parquet_table(folder / "items.parquet")
    own = items[items["axis"] == FORGETTING] if len(items) else items
    means = own.groupby(["id", "subset"])["score"].mean().reset_index().to_dict("records") if len(own) else []
    references = {run.seed: run for run in runs if run.method == REFERENCE and _finished(results[run.id])}
    endings = []
    for run in runs:
        result = results[run.id]
        facts = {"method": run.method, "rate": run.config["learning_rate"], "seed": run.seed}
        reason = None if _finished(result) else str(result["error"])
        if reason is None and (other := references.get(run.seed)) is not None:
            meant = any(run.config.get(name) != other.config.get(name) for name in READ)
            reason = refusal({**result, "reads_otherwise": meant}, results[other.id])
        if reason is not None:
            endings.append({**facts, "error": reason})
            continue
        forgotten = {row["subset"]: row["score"] for row in means if row["id"] == run.id}
        endings.append({**facts, "new": float(result["final_loss"]), "forgotten": forgotten})
    return endings


def _finished(result: dict[Any, Any]) -> bool:
    return bool(result["status"] == "finished" and math.isfinite(result["final_loss"]))


def _seen(folder: Path, runs: list[PlannedRun]) -> dict[str, list[str]]:
    """By general corpus, the methods whose cards have seen it."""
    corpora = msgspec.convert(json_object(folder / BEFORE), Before).general
    seen: dict[str, list[str]] = {name: [] for name in corpora}
    for method, run in {run.method: run for run in runs}.items():
        hashes = texts_seen(RunFolder(folder / "runs" / run.name).card)
        for name, corpus in corpora.items():
            seen[name] += [method] * (corpus.sha256 in hashes)
    return seen

"""What each change of an ablation did: its paired effect on the final loss, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cegm.compare.ablation import AblationConfig, Arm
from cegm.compare.statistics import CLAIM_SEEDS, Difference, holm, paired_difference
from cegm.train.durable import write_whole

LEVEL = 0.05
MEASURE = "validation loss, nats per token"
COSTS = "costs.json"
EFFECTS = "effects.json"


def write_effects(
    folder: Path, config: AblationConfig, results: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Any]
) -> Path:
    """`effects.json` of an ablation folder, in one move.

    Args:
        folder: Ablation folder.
        config: The ablation.
        results: `result.json` of its runs by id; failed ones included.
        costs: As `cost.read_costs` reads them.
    """
    return write_whole(folder / EFFECTS, json.dumps(effects(config, results, costs), indent=1, allow_nan=False))


def effects(
    config: AblationConfig, results: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of `effects.json`.

    Returns:
        `measure`, `seeds`, `claim` (enough seeds for one), `costs` (how they were measured, or None), `base` (an arm),
        `parts` (name and question) and `arms`, lowest effect first. An arm has `part`, `name`, `changes`, `losses` by
        seed, `failed` (error by seed), `state_bytes_per_weight`, `difference` (arm minus base; None without a seed
        that both finished), `p_holm` over all arms, `word` and `cost` (whole step over that of the base).
    """
    base = _arm(config, config.arms[0], results)
    arms = [_arm(config, arm, results) for arm in config.arms[1:]]
    for arm in arms:
        arm["difference"] = _difference(arm["losses"], base["losses"])
    adjusted = holm([arm["difference"] and arm["difference"]["p"] for arm in arms])
    for arm, p in zip(arms, adjusted, strict=True):
        arm["p_holm"] = p
        arm["word"] = _word(arm["difference"], p, bool(arm["failed"]))
        arm["cost"] = costs.get("ratios", {}).get(arm["name"])
    arms.sort(key=lambda arm: (arm["difference"] is None, (arm["difference"] or {}).get("estimate", 0.0)))
    return {
        "measure": MEASURE,
        "seeds": config.seed_list,
        "claim": len(config.seed_list) >= CLAIM_SEEDS,
        "costs": costs.get("how"),
        "base": base,
        "parts": [{"part": part, "question": question} for part, question in config.questions.items()],
        "arms": arms,
    }


def _arm(config: AblationConfig, arm: Arm, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    losses: dict[str, float] = {}
    failed: dict[str, str] = {}
    state: float | None = None
    for seed in config.seed_list:
        result = results[config.planned(arm, seed).id]
        if result["status"] != "finished":
            failed[str(seed)] = str(result["error"])
            continue
        losses[str(seed)] = float(result["final_loss"])
        state = result["optimizer_state_bytes"] / result["parameters"]
    return {
        "part": arm.part,
        "name": arm.name,
        "changes": arm.changes,
        "losses": losses,
        "failed": failed,
        "state_bytes_per_weight": state,
    }


def _difference(losses: Mapping[str, float], base: Mapping[str, float]) -> dict[str, Any] | None:
    seeds: Sequence[str] = [seed for seed in losses if seed in base]
    if not seeds:
        return None
    return asdict(paired_difference([losses[seed] for seed in seeds], [base[seed] for seed in seeds]))


def _word(difference: Mapping[str, Any] | None, p_holm: float | None, failed: bool) -> str:
    """`better` and `worse` when the 95 % interval excludes zero; a change under which a run failed is never better.

    With `CLAIM_SEEDS` seeds or more, when a Holm-adjusted p of .05 can be reached, it has to be.
    """
    if difference is None:
        return "failed"
    found = Difference(**difference)
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "no evidence"
    if found.seeds >= CLAIM_SEEDS and (p_holm is None or p_holm > LEVEL):
        return "no evidence"
    if found.low > 0:
        return "worse"
    return "no evidence" if failed else "better"

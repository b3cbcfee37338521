"""What each change of an ablation did: its paired effect on the final loss, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cegm.compare.ablation import AblationConfig, Arm
from cegm.compare.statistics import CLAIM_SEEDS, holm, paired_difference
from cegm.strict import json_object
from cegm.train.durable import write_whole

LEVEL = 0.05
MEASURE = "validation loss, nats per token"
COSTS = "costs.json"
EFFECTS = "effects.json"


def write_effects(folder: Path, config: AblationConfig, results: Mapping[str, Mapping[str, Any]]) -> Path:
    """`effects.json` of an ablation folder, in one move.

    Args:
        folder: Ablation folder; its `costs.json`, if costs were asked for and there is one, is put beside the effects.
        config: The ablation.
        results: `result.json` of its runs by id; failed ones included.

    Raises:
        ValueError: `costs.json` is damaged.
    """
    found = effects(config, results, read_costs(folder) if config.costs else {})
    return write_whole(folder / EFFECTS, json.dumps(found, indent=1, allow_nan=False))


def read_costs(folder: Path) -> dict[str, Any]:
    """The content of `costs.json`, whose schema stands at `cegm.compare.cost`; empty if there is none.

    Raises:
        ValueError: It is damaged.
    """
    path = folder / COSTS
    if not path.exists():
        return {}
    try:
        costs = json_object(path)
    except ValueError:
        costs = {}
    how, ratios = costs.get("how"), costs.get("ratios")
    if not isinstance(how, str) or not isinstance(ratios, dict) or not all(map(_is_ratio, ratios.values())):
        raise ValueError(f"{path} is damaged; delete it to measure the costs again")
    return costs


def _is_ratio(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("estimate"), int | float) and {"low", "high"} <= value.keys()
    )


def effects(
    config: AblationConfig, results: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of `effects.json`.

    Returns:
        `measure`, `seeds`, `claim` (every change that can be judged has seeds enough for one), `costs` (how they were
        measured, or None), `base` (an arm), `parts` (name and question) and `arms`, lowest effect first. An arm has
        `part`, `name`, `changes`, `losses` by seed, `failed` (error by seed), `state_bytes_per_weight`, `difference` (arm
        minus base; None without a seed that both finished), `p_holm` over all arms, `word` and `cost` (whole step over
        that of the base).
    """
    base = _arm(config, config.arms[0], results)
    arms = [_arm(config, arm, results) for arm in config.arms[1:]]
    for arm in arms:
        arm["difference"] = _difference(arm["losses"], base["losses"])
    adjusted = holm([arm["difference"] and arm["difference"]["p"] for arm in arms])
    for arm, p in zip(arms, adjusted, strict=True):
        arm["p_holm"] = p
        arm["word"] = _word(arm["difference"], p, bool(arm["failed"]), strict=len(config.seed_list) >= CLAIM_SEEDS)
        arm["cost"] = costs.get("ratios", {}).get(arm["name"])
    paired = [arm["difference"]["seeds"] for arm in arms if arm["difference"]]
    arms.sort(key=lambda arm: (arm["difference"] is None, (arm["difference"] or {}).get("estimate", 0.0)))
    return {
        "measure": MEASURE,
        "seeds": config.seed_list,
        "claim": min((seeds for seeds in paired if seeds > 1), default=0) >= CLAIM_SEEDS,
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


def _word(difference: Mapping[str, Any] | None, p_holm: float | None, failed: bool, strict: bool) -> str:
    """`better` and `worse` when the 95 % interval excludes zero; a change under which a run failed is never better.

    `strict` asks for a Holm-adjusted p of .05 beside it. It follows the planned seeds: losing one must not make it easier.
    """
    if difference is None:
        return "failed"
    if not difference["beyond_chance"] or (strict and (p_holm is None or p_holm > LEVEL)):
        return "no evidence"
    if difference["estimate"] > 0:
        return "worse"
    return "no evidence" if failed else "better"

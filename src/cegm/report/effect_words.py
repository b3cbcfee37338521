"""An ablation in plain sentences. Pure functions of `effects.json` and the base's configuration."""

from __future__ import annotations

from statistics import fmean

from cegm.report import words
from cegm.report.folder import Ablation, Record
from cegm.report.words import TIMES, signed

CONTROLS = "controls"

SIGN = "An effect is the loss of the change minus that of the base: negative = lower loss than base = better."


def spread(difference: Record) -> str:
    """The ends of the 95 % interval, or where seeds are too few for one the effect on each; a dash with one seed."""
    if difference["low"] is not None:
        return f"{signed(difference['low'])} to {signed(difference['high'])}"
    return ", ".join(map(signed, difference["points"])) if difference["seeds"] > 1 else words.NONE


def headline(ablation: Ablation) -> str:
    """How many changes are better, worse or neither, and on how many seeds."""
    arms, seeds = ablation.arms, len(ablation.effects["seeds"])
    screening = "" if ablation.effects["claim"] else " A screening, not a claim."
    tried = f"{_count(len(arms), 'change')} tried on {_count(seeds, 'seed')}"
    compared = [arm for arm in arms if arm["difference"]]
    if compared and not _judged(arms):
        return f"{tried}: one seed has no spread, so none can be called better or worse than the base.{screening}"
    counts = [
        f"{_number(sum(arm['word'] == word for arm in arms))} {meaning}"
        for word, meaning in (
            ("better", "better than the base"),
            ("worse", "worse"),
            ("no evidence", "without evidence of a difference"),
        )
    ]
    if len(compared) < len(arms):
        counts.append(f"{len(arms) - len(compared)} not compared")
    return f"{tried}: {', '.join(counts)}.{screening}"


def warnings(ablation: Ablation) -> list[str]:
    """What the reader has to know before using a number."""
    effects = ablation.effects
    rate = ablation.base.get("learning_rate")
    shown = "" if rate is None else f" (learning rate {rate:g})"
    seeds = ", ".join(str(seed) for seed in effects["seeds"])
    told = [
        f"Every change ran at the base's settings{shown}. The learning rate was not tuned again for each change, so a "
        "change that needs another one looks worse than it is.",
        f"An ablation chooses on its own seeds ({seeds}), and the best of many looks better than it is. What was chosen "
        "here must be confirmed on other seeds.",
    ]
    told += _chance(ablation)
    failed = [arm for arm in [effects["base"], *ablation.arms] if arm["failed"]]
    if failed:
        runs = sum(len(arm["failed"]) for arm in failed)
        told.append(
            f"{_count(runs, 'run')} failed (listed below). The seeds of failed runs are missing from the differences, and a change "
            "under which a run failed is never called better."
        )
    return told


def _chance(ablation: Ablation) -> list[str]:
    """How many of the words chance alone explains, and whether any survives the correction for trying many."""
    judged = _judged(ablation.arms)
    if not judged:
        return []
    expected, corrected = 0.05 * len(judged), [arm["p_holm"] for arm in judged if arm["p_holm"] is not None]
    text = (
        f"Words follow each change's own 95 % interval: of {_count(len(judged), 'change')} that did nothing, "
        f"{expected:.1f} would be called better or worse on average. All changes are set against the same base runs, "
        "so their errors go together."
    )
    surviving = sum(p < 0.05 for p in corrected)
    most = max(arm["difference"]["seeds"] for arm in judged)
    if surviving:
        text += (
            f" {surviving} of them stand{'s' * (surviving == 1)} after Holm's correction for trying many (p < 0.05)."
        )
    elif len(judged) * 2 / 2**most >= 0.05:
        text += f" After Holm's correction no p is below 0.05, and with {_count(most, 'seed')} none could be."
    else:
        text += " After Holm's correction for trying many, no p is below 0.05."
    return [text]


def answer(arms: list[Record]) -> str:
    """What the changes of one part say to its question, in one sentence.

    Args:
        arms: The changes of the part.
    """
    compared = [arm for arm in arms if arm["difference"]]
    if not compared:
        return "No change of this part could be compared: none finished on a seed on which the base finished."
    judged = _judged(compared)
    if not judged:
        told = ", ".join(f"{arm['name']} {signed(arm['difference']['estimate'])}" for arm in compared)
        return f"One seed cannot tell ({told})."
    clauses = []
    for word in ("better", "worse"):
        chosen = [_with_spread(arm) for arm in judged if arm["word"] == word]
        if chosen:
            clauses.append(f"{word}: {'; '.join(chosen)}")
    undecided = [arm for arm in judged if arm["word"] == "no evidence"]
    if not clauses:
        return f"No change of this part moved the loss beyond what {_seeds(judged)} can tell ({_largest(undecided)})."
    if undecided:
        names = ", ".join(arm["name"] for arm in undecided)
        clauses.append(f"no evidence: {names} ({_largest(undecided)})")
    text = "; ".join(clauses) + "."
    return text[0].upper() + text[1:]


def control_answer(arms: list[Record]) -> str:
    """How many controls the base beats, in one sentence.

    Args:
        arms: The controls.
    """
    judged = _judged(arms)
    if not judged:
        return answer(arms)
    better, worse = (sum(arm["word"] == word for arm in judged) for word in ("worse", "better"))
    return (
        f"Base is better than {_number(better)} of {_count(len(judged), 'control')} and worse than {_number(worse)}; "
        f"there is no evidence of a difference to {_number(len(judged) - better - worse)}."
    )


def controls(ablation: Ablation) -> list[str]:
    """How far the base is from each control: no context, random scores and whatever else was declared as one."""
    told = []
    arms = [arm for arm in ablation.arms if arm["part"] == CONTROLS]
    for arm in arms:
        found, label = arm["difference"], f"{arm['name']}{_gloss(ablation, arm, arms)}"
        if found is None:
            told.append(f"Base was not compared with {label}: no seed finished under both.")
        elif found["seeds"] < 2:
            told.append(f"Base ends {_apart(-found['estimate'])} {label} on one seed, which cannot tell.")
        elif arm["word"] in ("better", "worse"):
            word = "worse" if arm["word"] == "better" else "better"
            told.append(f"Base ends {_apart(-found['estimate'])} {label}: {word} ({_turned(found)}).")
        else:
            told.append(
                f"No evidence that base differs from {label}: it ends {_apart(-found['estimate'])} it "
                f"({'; '.join(filter(None, (_turned(found), _unseen(found))))})."
            )
    return told


def base_loss(ablation: Ablation) -> str:
    """Mean final loss of the base over its finished seeds, and their range."""
    losses = list(ablation.effects["base"]["losses"].values())
    if not losses:
        return "no seed finished"
    return f"{fmean(losses):.4f} ({min(losses):.4f} to {max(losses):.4f})"


def ratio(cost: Record | None) -> str:
    """Seconds of a step over those of the base."""
    return words.NONE if cost is None else f"{cost['estimate']:.3f} {TIMES}"


def blocks(cost: Record) -> str:
    """The ends of the interval of `ratio`, or where blocks are too few for one the ratio of each."""
    if cost["low"] is not None:
        return f"{cost['low']:.3f} to {cost['high']:.3f}"
    return ", ".join(f"{point:.3f}" for point in cost.get("points", ()))


def bytes_per_weight(arm: Record) -> str:
    """Optimizer state of a run that finished."""
    state = arm["state_bytes_per_weight"]
    return words.NONE if state is None else f"{state:.2f}"


def _gloss(ablation: Ablation, arm: Record, arms: list[Record]) -> str:
    """What a control is in the terms of the method, where its options say so."""
    from cegm.options import PRESETS, RECOMMENDED

    given = {**ablation.base.get("optimizer_options", {}), **arm["changes"]}
    options = {**RECOMMENDED, **PRESETS.get(given.get("preset", ""), {}), **given}
    told = []
    if options["power"] == options["gradient_power"] == 0:
        told.append("p = q = 0, no context")
    elif arm["changes"].get("scores") == "random":
        told.append("random scores of tokens")
    rest = {name: value for name, value in arm["changes"].items() if name != "max_steps"}
    if rest != arm["changes"] and any(other["changes"] == rest for other in arms):
        told.append("as many steps as fit into the base's time")
    return f" ({'; '.join(told)})" if told else ""


def _apart(difference: float) -> str:
    """Base minus control as the sentence needs it."""
    return f"{abs(difference):.4f} {'below' if difference < 0 else 'above'}"


def _turned(found: Record) -> str:
    if found["low"] is None:
        return f"base minus control, by seed {', '.join(signed(-point) for point in found['points'])}"
    ends = f"{signed(-found['high'])} to {signed(-found['low'])}"
    return f"base minus control, 95 % interval {ends}, {_count(found['seeds'], 'seed')}"


def _largest(arms: list[Record]) -> str:
    largest = max(arms, key=lambda arm: abs(arm["difference"]["estimate"]))
    found = largest["difference"]
    name = f" of {largest['name']}" if len(arms) > 1 else ""
    size = f"{'largest effect' if name else 'effect'}{name} {signed(found['estimate'])}"
    return "; ".join(filter(None, (size, _unseen(found) or f"by seed {spread(found)}")))


def _unseen(found: Record) -> str:
    smallest = found["smallest_detectable"]
    return "" if smallest is None else f"smallest detectable {smallest:.4f}"


def _with_spread(arm: Record) -> str:
    found = arm["difference"]
    seeds = f", {_count(len(arm['failed']), 'run')} failed" if arm["failed"] else ""
    return f"{arm['name']} {signed(found['estimate'])} ({'by seed ' * (found['low'] is None)}{spread(found)}{seeds})"


def _judged(arms: list[Record]) -> list[Record]:
    return [arm for arm in arms if arm["difference"] and arm["difference"]["seeds"] > 1]


def _seeds(arms: list[Record]) -> str:
    counts = sorted({arm["difference"]["seeds"] for arm in arms})
    return _count(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _number(number: int) -> str:
    return str(number) if number else "none"

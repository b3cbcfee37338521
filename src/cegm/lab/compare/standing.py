"""How much a verdict is worth, in words: a claim, a screening or nothing, by the seeds that could be paired."""

from __future__ import annotations

import math
from typing import Any

from cegm.lab.compare.seed_statistics import CLAIM_SEEDS, INTERVAL_SEEDS

LEVEL = 0.05

FEW = (
    f"Below {INTERVAL_SEEDS} seeds an interval is too wide to tell much: the effect on each seed is shown in its place."
)


def standing(measures: list[dict[str, Any]], planned: int, fallen: list[str]) -> dict[str, Any]:
    """Whether this is a claim or a screening by the seeds that could be paired, and the sentences that say so."""
    pairs = measures[0]["pairs"]
    counts = sorted(entry["n"] for entry in pairs if entry["n"] > 1)
    if not counts:
        most = max((entry["n"] for entry in pairs), default=0)
        text = f"Nothing can be concluded: {most} paired seeds leave no spread to judge by; run at least {CLAIM_SEEDS}."
        return {"screening": True, "statement": " ".join([text, *_unjudged(pairs, fallen)])}
    fewest, most, strict = counts[0], counts[-1], planned >= CLAIM_SEEDS
    rule = "better and worse rest on sign-flip tests with p at most .05 after Holm"
    tests = sum(entry["p"] is not None for m in measures if m["family"] == "primary" for entry in m["pairs"])
    of_planned = f"{fewest} of {planned} planned seeds can be paired everywhere"
    if fewest >= CLAIM_SEEDS:
        text = f"{of_planned}; {rule}. One model size and one token budget: nothing here is general."
    elif strict:
        text = (
            f"A screening, not a claim, which takes at least {CLAIM_SEEDS} paired seeds: {of_planned}. As was planned for a "
            f"claim, {rule}."
        )
    else:
        text = (
            f"A screening with {fewest} paired seeds, not a claim: a claim takes at least {CLAIM_SEEDS}, and a two-sided "
            f"sign-flip test over {fewest} seeds cannot go below p = {2 / 2**fewest:.2g}. Better and worse say only that a "
            f"95 % interval excludes no difference; the intervals are not adjusted for the number of comparisons: of {tests} "
            f"without any difference, {LEVEL * tests:.1f} would be called better or worse on average."
        )
    told = [text, *([FEW] if fewest < INTERVAL_SEEDS else []), *_unjudged(pairs, fallen)]
    if strict and tests * 2 / 2**most > LEVEL:
        needed = math.ceil(math.log2(2 * tests / LEVEL))
        told.append(f"With {tests} primary comparisons no adjusted p can reach .05 here: that takes {needed} seeds.")
    return {"screening": fewest < CLAIM_SEEDS, "statement": " ".join(told)}


def _unjudged(pairs: list[dict[str, Any]], fallen: list[str]) -> list[str]:
    """What is missing from the verdict: methods of which every run failed, and other pairs without two seeds in common."""
    told = [f"Failed on every seed, and so not judged: {', '.join(fallen)}."] if fallen else []
    apart = [entry["pair"] for entry in pairs if entry["n"] < 2 and not set(entry["pair"]) & set(fallen)]
    if apart:
        told.append(f"Fewer than two paired seeds, and so no word: {', '.join(map(' against '.join, apart))}.")
    return told

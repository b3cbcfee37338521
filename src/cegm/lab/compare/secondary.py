"""What a verdict says beside its words: when the target was reached, whether a loss is equal, what a right answer costs.

None of it decides "better" or "worse", and no p here is adjusted for the number of comparisons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from cegm.lab.compare.pairing import Pair, finished
from cegm.lab.compare.seed_statistics import equivalence_p
from cegm.lab.compare.standing import LEVEL

COSTED_AXIS = "efficiency"

LOSS_MARGIN = 0.01
"""Bits per byte within which two methods count as equally good at predicting text.

In benchmarks/results/lengths CEGM gains .145 from 200 to 300 steps, so .01 is what about 2 % more steps buy there, and
little more than what runs that differ in rounding alone differ by (.005 nats, .007 bits). To show it takes differences
that vary little over seeds: with 80 % power, if there is no difference at all, a standard deviation of up to .0086 at 8
seeds, .011 at 12 and .015 at 20. Between methods it was .013 to .035 there (200 and 300 steps), between CEGM and its
controls about .005 (benchmarks/results/confirmation).
"""


def survival_curves(main: pd.DataFrame, methods: Sequence[str]) -> dict[str, Any] | None:
    """Which share of each method's runs has reached the target by each step (Kaplan-Meier).

    A run that failed counts as one that was watched to the end and missed, unless it had reached the target before:
    left out, it would make its method look faster.

    Returns:
        `unit`, `horizon` (steps of the longest run) and by method: the `curve`, a staircase of steps and the share that
        has reached the target from there on, from 0 to where nobody is watched any more; the `median` (None if half of
        the runs are never seen to reach it); `reached` and `runs`. None if no run finished.
    """
    horizon = float(finished(main)["steps"].astype(float).max())
    if math.isnan(horizon):
        return None
    found = {}
    for method in methods:
        own = main[main["method"] == method]
        if len(own):
            ends = own["steps"].astype(float).where(own["status"] == "finished", horizon)
            found[method] = _reached_by(own["steps_to_target"].astype(float), ends)
    return {"unit": "steps", "horizon": horizon, "methods": found}


def _reached_by(times: pd.Series[float], ends: pd.Series[float]) -> dict[str, Any]:
    """Kaplan-Meier curve of times to a target; a miss is censored at the end of its own run."""
    missed = times.isna()
    assert not (times > ends).any(), "a run cannot reach the target after its end"
    curve = stats.ecdf(stats.CensoredData(uncensored=times[~missed], right=ends[missed])).sf
    steps, waiting = curve.quantiles, curve.probabilities
    halved = np.flatnonzero(waiting <= 0.5 + 1e-12)  # a product of fractions may miss one half by rounding
    stairs = {0.0: 0.0, **dict(zip(steps.tolist(), (1 - waiting).tolist(), strict=True))}
    stairs.setdefault(float(ends.max()), stairs[max(stairs)])
    return {
        "curve": [list(stair) for stair in stairs.items()],
        "median": float(steps[halved[0]]) if len(halved) else None,
        "reached": int((~missed).sum()),
        "runs": len(times),
    }


def no_loss(main: pd.DataFrame, paired: Mapping[Pair, Sequence[int]]) -> list[dict[str, Any]]:
    """Whether the validation losses of each pair are shown to be equal within a margin, at equal steps.

    Returns:
        For each pair with two paired seeds or more: `pair`, `margin` (bits per byte), `p` (the larger of two one-sided
        paired t-tests) and `no_loss`: p is at most .05 and no run of the two methods failed.
    """
    losses = finished(main).set_index(["method", "seed"])["bits_per_byte"].astype(float)
    broken = set(main[main["status"] != "finished"]["method"])
    found = []
    for pair, seeds in paired.items():
        first, second = ([float(losses[method, seed]) for seed in seeds] for method in pair)
        if len(seeds) >= 2 and all(map(math.isfinite, first + second)):
            p = equivalence_p(first, second, LOSS_MARGIN)
            shown = p <= LEVEL and not broken & set(pair)
            found.append({"pair": list(pair), "margin": LOSS_MARGIN, "p": p, "no_loss": shown})
    return found


def cost_per_correct(main: pd.DataFrame, items: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Seconds and tokens that a right answer took on the axis of reasoning efficiency.

    Returns:
        By method the mean over seeds; None where a run got nothing right, whose cost is infinite, or did not count.
        Empty where the axis was not examined.
    """
    own = items[items["axis"] == COSTED_AXIS] if len(items) else items
    if own.empty or "axes" not in main:
        return {}
    from cegm.lab.tasks import efficiency  # needs what examinations need; comparisons without axes do not

    costs: dict[str, dict[str, list[float]]] = {}
    for run in finished(main).to_dict("records"):
        answers = own[(own["method"] == run["method"]) & (own["seed"] == run["seed"])]
        if len(answers):
            axes = json.loads(run["axes"]) if isinstance(run["axes"], str) else run["axes"]
            spent = axes[COSTED_AXIS]
            tokens = spent.get("tokens")  # runs of earlier versions did not count them
            found = efficiency.cost_per_correct(
                spent["seconds"], math.nan if tokens is None else tokens, list(answers.itertuples())
            )
            of_method = costs.setdefault(str(run["method"]), {"seconds": [], "tokens": []})
            of_method["seconds"].append(found.seconds)
            of_method["tokens"].append(found.tokens)
    return {method: {name: _mean(values) for name, values in own.items()} for method, own in costs.items()}


def _mean(values: Sequence[float]) -> float | None:
    mean = fmean(values)
    return mean if math.isfinite(mean) else None

"""What methods forget at equal new loss: every method is a front over its learning rates, read between them, paired by seed.

One rate against one rate says nothing: whoever learns less forgets less. So each method's front (new loss against what was
forgotten) is read at the same new losses, those that take so many percent of the gain of the reference's best rate on the
same seed. Nothing is said beyond the rates that were tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cegm.lab.compare.seed_statistics import CLAIM_SEEDS, Array, Difference, paired_difference, paired_ratio

SHARES = (0.25, 0.5, 0.75, 0.9)
"""Of the gain of the reference's best rate, where fronts are read."""


@dataclass(frozen=True)
class Ending:
    """How a run at one learning rate ended: its loss on new text in nats per token, and what it forgot, lower being better."""

    rate: float
    new: float
    forgotten: float


Fronts = Mapping[tuple[str, int], Sequence[Ending]]
"""By method and seed."""


def front(endings: Sequence[Ending]) -> tuple[Array, Array]:
    """New losses, falling, and the least that was forgotten by whoever learned at least as much.

    Rates above that of the lowest new loss are left out, since they forget more and learn less; so is what is not finite.
    No rate counts as forgetting more than one that learned more still.
    """
    known = [each for each in endings if math.isfinite(each.new) and math.isfinite(each.forgotten)]
    best = min(known, key=lambda each: each.new, default=None)
    own = sorted((e for e in known if best and e.rate <= best.rate), key=lambda each: each.new, reverse=True)
    forgotten = np.array([each.forgotten for each in own], dtype=np.float64)
    return np.array([each.new for each in own], dtype=np.float64), np.minimum.accumulate(forgotten[::-1])[::-1]


def forgotten_at(endings: Sequence[Ending], new: float) -> float:
    """What was forgotten at a new loss, between the two rates around it; NaN where the rates do not reach to both sides."""
    losses, forgotten = front(endings)
    if not len(losses) or not losses[-1] <= new <= losses[0]:
        return math.nan
    return float(np.interp(-new, -losses, forgotten))


def target(reference: Sequence[Ending], before: float, share: float) -> float:
    """The new loss that takes this share of the gain of the best rate over the loss before; NaN without a gain."""
    losses, _ = front(reference)
    gain = before - losses[-1] if len(losses) else 0.0
    return before - share * gain if gain > 0 else math.nan


def reading(fronts: Fronts, before: Mapping[int, float], pair: tuple[str, str], share: float) -> dict[int, Array]:
    """By seed on which both can be read: what the first and the second of the pair, the reference, forgot at equal new loss."""
    found = {}
    for seed, loss in sorted(before.items()):
        own, other = (fronts.get((method, seed), ()) for method in pair)
        new = target(other, loss, share)
        values = np.array([forgotten_at(endings, new) for endings in (own, other)])
        if np.isfinite(values).all():
            found[seed] = values
    return found


def effect(values: Mapping[int, Array], as_ratio: bool) -> tuple[str, Difference] | None:
    """`ratio` or `difference` and its statistics over seeds; None without a seed.

    A ratio needs that both forgot something on every seed; where one did not, the difference is told in its place.
    """
    if not values:
        return None
    own, other = (np.array(side).tolist() for side in zip(*values.values(), strict=True))
    if as_ratio and min(own + other) > 0:
        return "ratio", paired_ratio(own, other)
    return "difference", paired_difference(own, other)


def entry(
    fronts: Fronts, before: Mapping[int, float], pair: tuple[str, str], share: float, as_ratio: bool
) -> dict[str, Any]:
    """One reading as `front.json` has it: like a pair of `verdict.json`, at one share of the gain.

    Args:
        fronts: Of the pair at least.
        before: New loss before training, by seed.
        pair: A method, and the reference.
        share: Of the gain.
        as_ratio: Whether the effect is a ratio where it can be.
    """
    values = reading(fronts, before, pair, share)
    kind, found = effect(values, as_ratio) or ("ratio" if as_ratio else "difference", None)
    return {
        "pair": list(pair),
        "share": share,
        "n": len(values),
        "screening": len(values) < CLAIM_SEEDS,
        "seeds": list(values),
        "kind": kind,
        "effect": None if found is None else found.estimate,
        "interval": None if found is None or found.low is None else [found.low, found.high],
        "points": [] if found is None else list(found.points),
        "beyond_chance": found is not None and found.beyond_chance,
        "p": None if found is None else found.p,
    }

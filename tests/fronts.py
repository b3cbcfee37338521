"""How runs of fronts end whose answers are known: CEGM forgets a share of what AdamW forgets at every new loss."""

from __future__ import annotations

from typing import Any

BEFORE = 4.0
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
GAINS = {"adamw": (0.3, 0.9, 1.5, 1.9, 2.0), "cegm": (0.4, 0.8, 1.4, 1.8, 2.2)}


def endings(share: float = 0.5, seeds: int = 2, failed: tuple[tuple[str, int, int], ...] = ()) -> list[dict[str, Any]]:
    """Of both methods: forgotten is .1 of the gain, of which CEGM forgets a share; a corpus gains, and a public set loses points.

    Args:
        share: What CEGM forgets of what AdamW does.
        seeds: How many; each forgets more than the one before.
        failed: Method, place of its rate, and seed, of runs without a result.
    """
    found: list[dict[str, Any]] = []
    for seed in range(seeds):
        for method, gains in GAINS.items():
            for place, (rate, gain) in enumerate(zip(RATES, gains, strict=True)):
                facts: dict[str, Any] = {"method": method, "rate": rate, "seed": seed}
                lost = gain * (share if method == "cegm" else 1.0) * (1 + 0.1 * seed)
                forgotten = {
                    "own text": 0.1 * lost,
                    "novels": 0.05 * lost,
                    "wiki": -0.01 * gain,
                    "lambada": 0.02 * lost,
                }
                end = {"new": BEFORE - gain, "forgotten": forgotten}
                found.append(facts | ({"error": "loss is not finite"} if (method, place, seed) in failed else end))
    return found

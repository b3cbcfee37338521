"""Labels: which answers a person is asked about, and what they say about the challenger.

Answers of both variants are paired in the order in which they were labelled. If both are equally good, a fair coin says which answer of a
pair is the right one, where only one is; so the evidence of `cegm.lab.pilot.looks` may be looked at after every label.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from msgspec import Struct

from cegm.lab.monitor.indicators import VARIANTS
from cegm.lab.pilot.looks import ENOUGH, capital
from cegm.lab.records import Request

LATEST = 2_000
"""Lines of the log, the last ones, of which answers are picked."""


class Label(Struct, kw_only=True):
    """A line of `labels.jsonl`: whether an answer was right, who says so and when."""

    number: int
    variant: str
    right: bool
    time: str
    who: str


class Evidence(NamedTuple):
    """What labels say.

    Attributes:
        right: Share of right answers by variant, of those labelled.
        pairs: Of answers of both.
        discordant: Pairs in which only one is right.
        capital: What bets on the champion made of 1, at their best.
    """

    right: dict[str, float]
    pairs: int
    discordant: int
    capital: float

    @property
    def is_enough(self) -> bool:
        """Whether the challenger is worse, up to one roll-out in twenty."""
        return self.capital >= ENOUGH


def picked(requests: Sequence[Request], labelled: set[tuple[int, str]], count: int, seed: int) -> list[Request]:
    """Answers to label: pairs to the same request, drawn by lot, then as many of each variant; none twice.

    Args:
        requests: Of the log; the last `LATEST` lines count.
        labelled: Number and variant of what is labelled already.
        count: Answers, at most.
        seed: Of the lot.
    """
    lot = random.Random(seed)
    answers: dict[int, dict[str, Request]] = {}
    for request in requests[-LATEST:]:
        if not request.error and request.status < 400 and (request.number, request.variant) not in labelled:
            answers.setdefault(request.number, {})[request.variant] = request
    pairs = [[*both.values()] for both in answers.values() if len(both) == len(VARIANTS)]
    chosen = lot.sample(pairs, min(count // 2, len(pairs)))
    for pair in chosen:
        lot.shuffle(pair)  # whoever labels is not to know whose answer comes first
    return [*chain.from_iterable(chosen), *_singles(answers.values(), count - 2 * len(chosen), lot)]


def _singles(answers: Iterable[dict[str, Request]], count: int, lot: random.Random) -> list[Request]:
    """Answers without a partner, half of each variant where there are both, in a mixed order."""
    alone = [next(iter(each.values())) for each in answers if len(each) == 1]
    by_variant = [[each for each in alone if each.variant == variant] for variant in VARIANTS]
    by_variant = [each for each in by_variant if each]
    found = [one for each in by_variant for one in lot.sample(each, min(count // len(by_variant), len(each)))]
    lot.shuffle(found)
    return found


def evidence(labels: Sequence[Label]) -> Evidence:
    """What labels say so far, in the order in which they were given."""
    by_variant = {variant: [each.right for each in labels if each.variant == variant] for variant in VARIANTS}
    pairs = list(zip(by_variant["champion"], by_variant["challenger"], strict=False))
    wins = [champion for champion, challenger in pairs if champion != challenger]
    right = {variant: sum(each) / len(each) for variant, each in by_variant.items() if each}
    return Evidence(right, len(pairs), len(wins), float(capital(wins).max()) if wins else 1.0)


def told(found: Evidence) -> str:
    """What labels say in one line."""
    shares = ", ".join(f"{variant} right in {share:.0%}" for variant, share in found.right.items())
    word = "the challenger is worse: HARD ALARM" if found.is_enough else "no evidence that the challenger is worse"
    return (
        f"labels: {shares}; {found.pairs} pairs, {found.discordant} with one right answer; "
        f"{word} ({found.capital:.3g} of {ENOUGH:g}); docs/runbook.md#labels"
    )

"""A verdict as a pilot would write it, from chosen effects: the worked example of the design."""

from __future__ import annotations

from typing import Any

from cegm.lab.compare.compare_config import from_names
from cegm.lab.pilot.decision import decide
from cegm.lab.pilot.fixing import Fix, hashed
from cegm.lab.pilot.money import Money
from cegm.lab.pilot.pilot_config import PilotConfig
from cegm.lab.pilot.pilot_verdict import Checkpoint, PilotVerdict

POINTS = [0.019, 0.019, 0.006, -0.0105, 0.002, -0.002, 0.011, -0.0125]
"""Eight seeds with a mean of .4 points and an interval from -.6 to 1.4."""

MONEY = Money(value=100.0, requests=240_000, per_request=0.1, once=50_000.0)
"""A right answer is worth 100 yen, 20,000 requests a month for a year; an effect of .4 points earns 22,000 yen."""


def example(**changes: Any) -> PilotConfig:
    values = {
        "task": "faq", "data": "questions.jsonl", "value": MONEY.value, "requests_per_month": 20_000.0, "seeds": "8",
        "cost_per_request": MONEY.per_request, "cost_once": MONEY.once, "applicant": "山田 太郎", "approver": "佐藤 花子",
        "owner": "カスタマーサポート部", "data_source": "Banking77", "data_licence": "CC BY 4.0", **changes,
    }  # fmt: skip
    return from_names(PilotConfig, values)


def verdict(points: list[float] = POINTS, money: Money = MONEY, smallest_worthwhile: float = 0.01) -> PilotVerdict:
    """Of so many seeds, with a checkpoint that is better on 24 of 400 items and worse on 19."""
    items = [1.0] * 24 + [-1.0] * 19 + [0.0] * 357
    decided = decide(points, money, smallest_worthwhile)
    return PilotVerdict(
        fixed_at="2026-11-28T09:00:00+00:00",
        criteria_sha256="3f" * 32,
        items=400,
        seeds=list(range(len(points))),
        method="cegm",
        against="adamw",
        decision=decided,
        points=points,
        over_base=decide([point + 0.31 for point in points], money, smallest_worthwhile),
        checkpoint=Checkpoint(3, "5bf08c7effdf", decide(items, money, smallest_worthwhile), 24, 19, 0.542, None),
        means={
            "base": {"chosen": 0.41, "answered": 0.47, "control": 0.52},
            "adamw": {"chosen": 0.716, "answered": 0.79, "control": 0.52},
            "cegm": {"chosen": 0.72, "answered": 0.794, "control": 0.52},
        },
        money=money,
        training_seconds={"adamw": 600.0, "cegm": 640.0},
        answering={"adamw": {"seconds": 0.4, "tokens": 260.0}, "cegm": {"seconds": 0.4, "tokens": 260.0}},
        pilot_cost=176.0,
    )


def fix_of(config: PilotConfig) -> Fix:
    return Fix("2026-11-28T09:00:00+00:00", config.criteria, hashed(config.criteria), {}, {})

"""What a pilot would cost, said before it runs."""

from __future__ import annotations

import re

from cegm.lab.pilot.pilot_config import PilotConfig
from cegm.lab.pilot.planned_costs import planned_costs


def config(tiny, **changes):
    changes = changes or {"max_steps": 100_000}
    shared = {"model_name_or_path": tiny, "lora_r": 2, "max_length": 64, **changes}
    return PilotConfig(task="faq", data="rows.jsonl", value=100.0, seeds="3", price_per_hour=1_000.0, shared=shared)


def test_hours_of_all_runs_are_those_of_each_and_money_follows(tiny) -> None:
    told = planned_costs(config(tiny))
    adamw, cegm, whole, money = (
        float(number.replace(",", ""))
        for number in re.findall(r"adamw ([\d.]+) h, cegm ([\d.]+) h.*?; ([\d.]+) hours.*?runs, ([\d,]+) JPY", told)[0]
    )
    assert "6 runs" in told
    assert abs(3 * (adamw + cegm) - whole) <= 0.09
    assert abs(money - 1_000 * whole) <= 60


def test_where_nothing_can_be_forecast_it_says_why(tiny) -> None:
    assert "give max_steps" in planned_costs(config(tiny, num_train_epochs=1))
    assert planned_costs(config("no/such-model")).startswith("no forecast of costs: ")

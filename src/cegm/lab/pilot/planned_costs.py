"""What the training of a pilot would cost here, before any of it has run; measured times take its place afterwards."""

from __future__ import annotations

from cegm.lab.forecast.forecast import forecast
from cegm.lab.forecast.machine import HERE
from cegm.lab.forecast.plan_config import PlanConfig
from cegm.lab.pilot.pilot_config import PilotConfig
from cegm.lab.train.prepare import quieten


def planned_costs(config: PilotConfig) -> str:
    """Hours of a run of each method, and of all runs with their price, in one line; or why there is no forecast."""
    runs = [config.run(method) for method in config.method_list]
    if any(run.steps is None for run in runs):
        return "no forecast of costs: num_train_epochs says nothing without the data; give max_steps to have one"
    quieten()
    try:
        estimates = forecast(PlanConfig(machine=HERE, devices=1), runs).estimates
    except ValueError as error:  # the pilot may run all the same
        return f"no forecast of costs: {' '.join(str(error).split())}"
    hours = {estimate.run.method: estimate.hours for estimate in estimates}
    seeds = len(config.seed_list)
    whole = seeds * sum(hours.values())
    each = ", ".join(f"{method} {own:.2f} h" for method, own in hours.items())
    return (
        f"planned: {each} a run; {whole:.1f} hours of one process for {seeds * len(hours)} runs, "
        f"{whole * config.price_per_hour:,.0f} {config.currency}; what is asked after each run comes on top"
    )

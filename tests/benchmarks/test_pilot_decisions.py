"""The simulated pilots: a lead is what it says, and a method against itself has none."""

import numpy as np
import pytest

import pilot_decisions as simulation


@pytest.mark.parametrize("lead", [0.0, 0.02, 0.1])
def test_a_lead_is_gained_over_all_items_on_average(lead):
    rng = np.random.default_rng(0)
    gained = simulation.shares(lead, 3_000, rng).mean() - simulation.shares(0.0, 3_000, rng).mean()
    assert gained == pytest.approx(lead, abs=0.001)


def test_a_method_against_itself_is_not_adopted():
    found = simulation.pilots(0.0, 50, 10, np.random.default_rng(1))
    assert found["GO"] <= 0.05 * found["pilots"]
    assert found["GO"] + found["HOLD"] + found["STOP"] == 50

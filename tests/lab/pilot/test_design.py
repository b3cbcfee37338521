"""How many seeds a pilot takes."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from cegm.lab.pilot.decision import decide
from cegm.lab.pilot.design import POWER, power, proposed_seeds
from cegm.lab.pilot.money import Money


def test_power_is_that_of_a_one_sided_t_test_where_break_even_is_far_away() -> None:
    expected = TTestPower().power(effect_size=1.0, nobs=9, alpha=0.025, alternative="larger")
    assert power(9, 0.01, -1.0, 0.01) == pytest.approx(expected, abs=1e-6)


def test_the_fewest_seeds_with_enough_power_are_proposed() -> None:
    seeds = proposed_seeds(0.01, 0.0, 0.01)
    assert power(seeds, 0.01, 0.0, 0.01) >= POWER > power(seeds - 1, 0.01, 0.0, 0.01)


def test_a_pilot_with_the_proposed_seeds_ends_in_go_as_often_as_it_says() -> None:
    rng, money = np.random.default_rng(0), Money(value=100.0, requests=1e5, once=120_000.0)
    seeds = proposed_seeds(0.01, money.break_even_effect, 0.01)
    said = [decide(rng.normal(0.02, 0.01, seeds), money, 0.01).word for _ in range(2_000)]
    expected = power(seeds, 0.01, money.break_even_effect, 0.01)
    assert said.count("GO") / 2_000 == pytest.approx(expected, abs=0.03)


def test_more_spread_or_a_higher_break_even_takes_more_seeds() -> None:
    assert proposed_seeds(0.01, 0.0, 0.02) > proposed_seeds(0.01, 0.0, 0.01)
    assert proposed_seeds(0.01, 0.015, 0.01) > proposed_seeds(0.01, 0.0, 0.01)


def test_what_no_number_of_seeds_can_find_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smallest_worthwhile=0\.01 cannot be told"):
        proposed_seeds(0.01, 0.02, 0.01)

"""Looks at any time: how often they say "better" of equal models, and how soon of better ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cegm.lab.pilot.looks import ENOUGH, STAKES, capital, first_enough


def test_capital_is_the_mean_over_stakes_of_what_each_has_made_of_it() -> None:
    expected = np.mean([(1 + s) * (1 - s) * (1 + s) for s in STAKES])
    assert capital([True, False, True])[-1] == pytest.approx(expected)


def test_the_expected_capital_of_a_fair_coin_is_what_one_began_with() -> None:
    every = np.array(np.meshgrid(*[[True, False]] * 8)).reshape(8, -1).T
    assert np.mean([capital(row)[-1] for row in every]) == pytest.approx(1.0)


def test_equal_models_are_called_better_in_at_most_five_percent_where_mcnemar_is_wrong_far_more_often() -> None:
    """A tenth of 4,000 items is discordant; McNemar's exact test looks after every 100 items."""
    rng = np.random.default_rng(0)
    simulations, wrong, fooled = 1_000, 0, 0
    for _ in range(simulations):
        coins = rng.random(4_000)
        discordant = coins < 0.1
        first = coins[discordant] < 0.05
        wrong += first_enough(first) is not None
        so_far, wins = discordant.cumsum()[99::100], np.concatenate([[0], first.cumsum()])
        fooled += (stats.binom.sf(wins[so_far] - 1, so_far, 0.5) < 0.025).any()
    assert wrong / simulations <= 0.05
    assert fooled / simulations > 2 * wrong / simulations


def test_a_better_model_is_found() -> None:
    rng = np.random.default_rng(1)
    found = [first_enough(rng.random(400) < 0.7) for _ in range(200)]
    reached = [count for count in found if count is not None]
    assert len(reached) >= 190
    assert np.median(reached) < 60


def test_looking_on_changes_nothing_that_was_seen_before() -> None:
    wins = np.random.default_rng(2).random(300) < 0.5
    assert capital(wins)[:100] == pytest.approx(capital(wins[:100]))


def test_nothing_discordant_is_no_evidence() -> None:
    assert first_enough([]) is None
    assert first_enough([True] * 5) is None
    assert capital([True] * 12)[-1] > ENOUGH

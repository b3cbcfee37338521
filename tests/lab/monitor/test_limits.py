"""Bets against a share that is allowed: fair at the limit, and quick beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cegm.lab.monitor.e_detector import ShiryaevRoberts
from cegm.lab.monitor.limits import DOUBT, Limit, upper_limit


@pytest.mark.parametrize("allowed", [0.001, 0.01, 0.1, 0.4, 0.6])
def test_bets_are_fair_at_the_limit_and_lose_below_it(allowed: float) -> None:
    limit = Limit(allowed)
    happened, not_happened = limit.factors(True), limit.factors(False)
    assert len(happened) == limit.bets
    assert allowed * happened + (1 - allowed) * not_happened == pytest.approx(np.ones(limit.bets))
    assert (allowed / 2 * happened + (1 - allowed / 2) * not_happened < 1).all()
    assert (not_happened >= 0).all()


@pytest.mark.parametrize("allowed", [0.0, 0.7, 1.0])
def test_a_limit_that_nothing_can_pass_is_refused(allowed: float) -> None:
    with pytest.raises(ValueError, match="leaves nothing to bet on"):
        Limit(allowed)


def test_a_rate_that_doubles_is_found_in_a_few_hundred_requests() -> None:
    """At a threshold of 10,000; from .1 to .2, which takes 207 by the divergence of the two alone."""
    rng, delays = np.random.default_rng(0), []
    for _ in range(40):
        limit, count = Limit(0.1), 1
        evidence = ShiryaevRoberts(limit.bets)
        while evidence.add(limit.factors(rng.random() < 0.2)) < 10_000:
            count += 1
        delays.append(count)
    assert np.median(delays) < 207


def test_a_server_that_is_gone_is_noticed_within_a_handful() -> None:
    limit, count = Limit(0.01), 1
    evidence = ShiryaevRoberts(limit.bets)
    while evidence.add(limit.factors(True)) < 160_000:
        count += 1
    assert count <= 5


@pytest.mark.parametrize(("count", "requests"), [(0, 100), (3, 200), (50, 1000), (99, 100), (100, 100)])
def test_a_limit_from_a_sample_is_no_lower_than_the_exact_one(count: int, requests: int) -> None:
    exact = stats.beta.ppf(1 - DOUBT, count + 1, requests - count) if count < requests else 1.0
    assert exact <= upper_limit(count, requests) <= min(1.0, exact + 0.03)

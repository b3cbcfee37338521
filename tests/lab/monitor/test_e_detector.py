"""The Shiryaev-Roberts e-detector: what it adds up, and that its promise about false alarms is kept."""

from __future__ import annotations

import numpy as np
import pytest

from cegm.lab.monitor.e_detector import ShiryaevRoberts
from cegm.lab.monitor.limits import Limit


def oracle(factors: np.ndarray) -> list[float]:
    """The definition: for every beginning the product of all factors since, summed over beginnings, averaged over bets."""
    return [
        float(sum(np.prod(factors[begun : end + 1], axis=0) for begun in range(end + 1)).mean())
        for end in range(len(factors))
    ]


def test_evidence_is_the_sum_over_beginnings_of_what_bets_have_made_since() -> None:
    factors = np.random.default_rng(0).uniform(0.2, 2.0, (30, 4))
    evidence = ShiryaevRoberts(4)
    assert [evidence.add(row) for row in factors] == pytest.approx(oracle(factors))


def test_it_is_never_below_cusum_and_so_never_later() -> None:
    factors = np.random.default_rng(1).uniform(0.0, 2.2, (200, 3))
    evidence, cusum = ShiryaevRoberts(3), np.ones(3)
    for row in factors:
        cusum = np.maximum(cusum, 1.0) * row
        assert evidence.add(row) >= cusum.mean() - 1e-9


def test_its_mean_grows_by_one_with_each_request_while_nothing_has_changed() -> None:
    """Over every outcome of eight coins, exactly: this is what the promise rests on."""
    limit, total = Limit(0.25), 0.0
    for outcome in range(2**8):
        coins = [bool(outcome >> bit & 1) for bit in range(8)]
        evidence = ShiryaevRoberts(limit.bets)
        last = [evidence.add(limit.factors(coin)) for coin in coins][-1]
        total += last * 0.25 ** sum(coins) * 0.75 ** (8 - sum(coins))
    assert total == pytest.approx(8.0)


def test_false_alarms_are_as_far_apart_as_promised() -> None:
    rng, promise, times = np.random.default_rng(2), 200, []
    for _ in range(100):
        limit = Limit(0.1)
        evidence, count = ShiryaevRoberts(limit.bets), 1
        while evidence.add(limit.factors(rng.random() < 0.1)) < promise:
            count += 1
        times.append(count)
    assert np.mean(times) >= promise


def test_the_first_false_alarm_of_many_keeps_the_promise_with_as_many_times_the_threshold() -> None:
    rng, promise, detectors, times = np.random.default_rng(3), 100, 8, []
    limit = Limit(0.1)
    for _ in range(100):
        evidence, count = [ShiryaevRoberts(limit.bets) for _ in range(detectors)], 1
        while max(each.add(limit.factors(rng.random() < 0.1)) for each in evidence) < promise * detectors:
            count += 1
        times.append(count)
    assert np.mean(times) >= promise

"""Conformal p-values: where a number stands, uniform and independent whatever the numbers are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from cegm.lab.monitor.conformal import Bag


def oracle(values: list[float], lots: list[float]) -> list[float]:
    found = []
    for count, (value, lot) in enumerate(zip(values, lots, strict=True), start=1):
        so_far = values[:count]
        larger, equal = sum(each > value for each in so_far), sum(each == value for each in so_far)
        found.append((larger + lot * equal) / count)
    return found


class Lots:
    """Draws what it is told to."""

    def __init__(self, lots: list[float]) -> None:
        self._lots = iter(lots)

    def random(self) -> float:
        return next(self._lots)


def test_a_p_value_is_the_share_of_all_so_far_that_is_larger_and_a_lot_among_equals() -> None:
    rng = np.random.default_rng(0)
    values, lots = rng.integers(0, 6, 60).tolist(), rng.random(60).tolist()
    bag = Bag((), "seed")
    bag._lots = Lots(lots)  # type: ignore[assignment]
    assert [bag.add(value) for value in values] == pytest.approx(oracle(values, lots))


def test_the_reference_counts_as_if_it_had_come_before() -> None:
    assert Bag(range(99), "seed").add(1_000) <= 0.01
    assert Bag(range(99), "seed").add(-1) >= 0.99


def test_p_values_of_every_order_of_the_same_numbers_are_uniform_together() -> None:
    """Exactly, in thirds and halves: over all orders of three numbers each pair of ranks comes equally often."""
    pairs = [
        tuple(int(bag.add(value) * count) for count, value in enumerate(order, start=1))
        for order in itertools.permutations([1.0, 2.0, 5.0])
        for bag in [Bag((), "seed")]
    ]
    assert len(set(pairs)) == 6


@pytest.mark.parametrize("numbers", ["lognormal", "coin", "constant"])
def test_p_values_are_uniform_and_independent_whatever_numbers_are_distributed_like(numbers: str) -> None:
    rng = np.random.default_rng(1)
    values = {
        "lognormal": rng.lognormal(0, 2, 4000),
        "coin": (rng.random(4000) < 0.03) * 1.0,
        "constant": np.ones(4000),
    }
    bag = Bag((), "seed")
    found = np.array([bag.add(value) for value in values[numbers]])
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert abs(stats.spearmanr(found[1:], found[:-1]).statistic) < 0.05


def test_the_same_log_gives_the_same_p_values_again() -> None:
    first, second = (Bag([0.0] * 10, "sha champion length") for _ in range(2))
    assert [first.add(0.0) for _ in range(5)] == [second.add(0.0) for _ in range(5)]

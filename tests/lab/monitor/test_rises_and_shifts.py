"""Bets on rises of what is rare and on shifts of numbers: fair on uniform p-values, slow to err, quick to find."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate

from cegm.lab.monitor.conformal import Bag
from cegm.lab.monitor.e_detector import ShiryaevRoberts
from cegm.lab.monitor.rises import Rise
from cegm.lab.monitor.shifts import KINDS, Shift

PROMISE = 10_000


class Given:
    """A bag that gives the p-value it is asked about."""

    def add(self, value: float) -> float:
        return value


def first_alarm(bets: Rise | Shift, values: np.ndarray, threshold: float) -> int | None:
    evidence = ShiryaevRoberts(bets.bets)
    return next((n for n, value in enumerate(values, 1) if evidence.add(bets.factors(value)) >= threshold), None)


@pytest.mark.parametrize("kind", [Rise, Shift])
def test_every_bet_is_fair_on_a_uniform_p_value(kind: type[Rise] | type[Shift]) -> None:
    """Or loses by a hair, where the score of a p-value near 0 is cut."""
    bets = kind(Given())  # type: ignore[arg-type]
    found, _ = integrate.quad_vec(bets.factors, 0.0, 1.0, limit=2_000, epsabs=1e-7)
    assert found.max() <= 1 + 1e-3
    assert found.min() > 0.995
    assert all((bets.factors(p) >= 0).all() for p in (0.0, 1e-9, 0.3, 1.0))


def delays(make: Callable[[np.random.Generator, str], tuple[Rise | Shift, np.ndarray]]) -> list[int | None]:
    rng = np.random.default_rng(0)
    return [first_alarm(*make(rng, str(seed)), PROMISE) for seed in range(30)]


def test_a_shift_of_seven_tenths_is_found_sooner_than_by_adwin() -> None:
    """Which takes 55, and promises nothing."""
    found = delays(lambda rng, seed: (Shift(Bag(rng.normal(size=1000), seed)), rng.normal(size=500) + 0.7))
    assert np.median([each or 500 for each in found]) < 55


@pytest.mark.parametrize("change", ["down", "spread"])
def test_smaller_numbers_and_more_spread_ones_are_found_too(change: str) -> None:
    def make(rng: np.random.Generator, seed: str) -> tuple[Shift, np.ndarray]:
        draws = rng.lognormal(0.0, 1.0, 500) if change == "spread" else rng.lognormal(-0.35, 0.5, 500)
        return Shift(Bag(rng.lognormal(0.0, 0.5, 1000), seed)), draws

    assert np.median([each or 500 for each in delays(make)]) < 80


def test_a_rare_event_that_becomes_twice_as_frequent_is_found_though_no_rate_was_given() -> None:
    found = delays(lambda rng, seed: (Rise(Bag((rng.random(1000) < 0.1) * 1.0, seed)), rng.random(2000) < 0.2))
    assert np.median([each or 2000 for each in found]) < 350


def test_what_becomes_rarer_is_no_rise() -> None:
    found = delays(lambda rng, seed: (Rise(Bag((rng.random(1000) < 0.1) * 1.0, seed)), rng.random(500) < 0.02))
    assert found == [None] * 30


@pytest.mark.parametrize("kind", ["rise", "shift"])
def test_false_alarms_are_as_far_apart_as_promised_over_references_that_are_small(kind: str) -> None:
    """A promise of 100 after 50 requests, where a reference that is not typical is the rule."""
    rng, times = np.random.default_rng(1), []
    for seed in range(100):
        draws = (rng.random(1_050) < 0.05) * 1.0 if kind == "rise" else rng.standard_t(2, 1_050)
        bag = Bag(draws[:50], str(seed))
        found = first_alarm(Rise(bag) if kind == "rise" else Shift(bag), draws[50:], 100)
        times.append(found or 1_000)  # at least
    assert np.mean(times) >= 100


def test_bets_go_both_ways() -> None:
    shifts = [shift for shift, _ in KINDS]
    assert sorted(shifts) == sorted(-shift for shift in shifts)

"""The decision: the worked example to the yen, the formulae against simulation and scipy, and the three words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from cegm.lab.pilot.decision import decide, more_information, perfect_information, probability_of_profit
from cegm.lab.pilot.money import Money

POINTS = [0.019, 0.019, 0.006, -0.0105, 0.002, -0.002, 0.011, -0.0125]
"""Eight seeds with a mean of .4 points, as in the worked example of the design."""

MONEY = Money(value=100.0, requests=240_000, per_request=0.1, once=50_000.0)
"""A right answer is worth 100 yen, 20,000 requests a month for a year."""


def test_the_worked_example_comes_out_to_the_yen() -> None:
    found = decide(POINTS, MONEY, smallest_worthwhile=0.0)
    assert (round(100 * found.effect, 1), round(100 * found.low, 1), round(100 * found.high, 1)) == (0.4, -0.6, 1.4)
    assert (round(found.net), round(found.net_low), round(found.net_high)) == (22_000, -220_855, 264_855)
    assert round(found.probability, 2) == 0.58
    assert found.word == "HOLD"
    assert round(found.more_information) == 19_291


def test_money_is_what_the_formulae_say() -> None:
    assert MONEY.net(0.004) == pytest.approx(240_000 * (100 * 0.004 - 0.1) - 50_000)
    assert MONEY.net(MONEY.break_even_effect) == pytest.approx(0.0, abs=1e-6)
    needed = MONEY.break_even_requests(0.004)
    assert needed is not None
    assert Money(100.0, needed, 0.1, 50_000.0).net(0.004) == pytest.approx(0.0, abs=1e-6)
    assert MONEY.break_even_requests(0.0005) is None


def test_probability_and_interval_are_those_of_scipys_t_test() -> None:
    nets = [MONEY.net(point) for point in POINTS]
    test = stats.ttest_1samp(nets, 0.0, alternative="greater")
    found = decide(POINTS, MONEY, 0.0)
    assert found.probability == pytest.approx(1 - test.pvalue)
    interval = stats.ttest_1samp(nets, 0.0).confidence_interval(0.95)
    assert (found.net_low, found.net_high) == pytest.approx((interval.low, interval.high))


def test_probability_of_profit_is_how_often_a_flat_prior_finds_a_profit() -> None:
    """Of a normal sample with a flat prior on mean and log deviation, the mean's posterior is Student's t."""
    rng = np.random.default_rng(0)
    net, error, count, draws = 22_000.0, 100_000.0, 8, 400_000
    deviation = error * math.sqrt(count) * np.sqrt((count - 1) / rng.chisquare(count - 1, draws))
    means = rng.normal(net, deviation / math.sqrt(count))
    assert probability_of_profit(net, error, count) == pytest.approx((means > 0).mean(), abs=0.003)


@pytest.mark.parametrize("net", [-150_000.0, -20_000.0, 0.0, 22_000.0, 300_000.0])
def test_perfect_information_is_what_knowing_saves_on_average(net: float) -> None:
    truth = np.random.default_rng(1).normal(net, 100_000.0, 2_000_000)
    saved = np.maximum(truth, 0.0).mean() - max(truth.mean(), 0.0)
    assert perfect_information(net, 100_000.0) == pytest.approx(saved, rel=0.02, abs=100)
    loss, _ = integrate.quad(
        lambda x: max(-x * math.copysign(1, net), 0.0) * stats.norm.pdf(x, net, 1e5), -1e6, 1e6, points=[0]
    )
    assert perfect_information(net, 100_000.0) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(("net", "more"), [(22_000.0, 8), (-40_000.0, 3), (0.0, 40)])
def test_more_information_is_what_deciding_after_more_seeds_earns_on_average(net: float, more: int) -> None:
    count, spread = 8, 300_000.0
    rng = np.random.default_rng(2)
    truth = rng.normal(net, spread / math.sqrt(count), 2_000_000)
    seen = rng.normal(truth, spread / math.sqrt(more))
    then = (count * net + more * seen) / (count + more)
    gained = (truth * (then > 0)).mean() - max(net, 0.0)
    assert more_information(net, spread / math.sqrt(count), count, more) == pytest.approx(gained, rel=0.03, abs=300)


def test_information_is_worth_least_where_the_sign_is_sure_and_never_more_than_perfect_information() -> None:
    worth = [perfect_information(net, 1.0) for net in (0.0, 1.0, 2.0, 5.0)]
    assert worth == sorted(worth, reverse=True)
    assert worth[0] == pytest.approx(1 / math.sqrt(2 * math.pi))
    assert more_information(0.5, 1.0, 8, 8) < perfect_information(0.5, 1.0)
    assert more_information(0.5, 1.0, 8, 10**9) == pytest.approx(perfect_information(0.5, 1.0))


def test_without_any_spread_the_sign_decides_and_nothing_is_left_to_learn() -> None:
    found = decide([0.03] * 4, MONEY, 0.01)
    assert (found.word, found.probability, found.perfect_information) == ("GO", 1.0, 0.0)
    assert decide([-0.03] * 4, MONEY, 0.01).word == "STOP"
    assert decide([0.0] * 4, Money(1.0, 1.0), 0.0).probability == 0.5


def test_a_sure_effect_that_costs_more_than_it_earns_is_held_back() -> None:
    dear = Money(value=1.0, requests=100, once=1_000.0)
    assert decide([0.05, 0.051, 0.052], dear, 0.01).word == "HOLD"


def test_a_profit_below_the_smallest_worthwhile_effect_is_a_stop() -> None:
    found = decide([0.005, 0.0051, 0.0052], Money(100.0, 1e6), 0.01)
    assert (found.word, found.probability > 0.99) == ("STOP", True)


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, math.nan]])
def test_what_cannot_be_judged_is_refused(differences: list[float]) -> None:
    with pytest.raises(ValueError, match="run more seeds"):
        decide(differences, MONEY, 0.01)

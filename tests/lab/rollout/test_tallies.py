"""Shares and quantiles with intervals that hold as often as they say."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from cegm.lab.records import Request
from cegm.lab.rollout.tallies import Key, Tallies, quantile, share


def request(**given: Any) -> Request:
    usual: dict[str, Any] = {
        "number": 1, "time": "t", "user": "0" * 16, "stage": "all", "variant": "challenger", "shadow": False, "status": 200,
        "seconds": 0.5, "characters": 3, "refused": False,
    }  # fmt: skip
    return Request(**{**usual, **given})


def test_wilsons_interval_is_that_of_the_books() -> None:
    pytest.importorskip("statsmodels")
    from statsmodels.stats.proportion import proportion_confint

    for part, whole in ((0, 10), (1, 20), (9, 10), (500, 1000)):
        low, high = proportion_confint(part, whole, method="wilson")
        assert share(part, whole)[1:] == pytest.approx((low, high), abs=1e-6)
    assert share(0, 0)[1:] == (0.0, 1.0)
    assert [(share(0, n).low, share(n, n).high) for n in range(1, 500)] == [(0.0, 1.0)] * 499
    assert math.isnan(share(0, 0).value)


def test_the_interval_of_a_quantile_holds_it_in_95_of_100_samples() -> None:
    draw, hits = random.Random(0), 0
    for _ in range(400):
        _, low, high = quantile([draw.random() for _ in range(300)], 0.95)
        hits += low <= 0.95 <= high
    assert hits >= 0.93 * 400


def test_a_sample_too_small_for_a_bound_has_none() -> None:
    assert quantile([1.0] * 20, 0.95) == (1.0, 1.0, math.inf)
    assert quantile([1.0] * 2, 0.5)[1:] == (0.0, math.inf)
    assert math.isnan(quantile([], 0.5).value)
    assert quantile([3.0, 1.0, 2.0], 0.5).value == 2.0
    assert quantile(range(1, 101), 0.95).value == 95


def test_failures_count_and_their_times_do_not() -> None:
    tallies = Tallies(
        [request(), request(error="gone", seconds=9.0), request(status=499, seconds=9.0), request(refused=True)]
    )
    tally = tallies[Key("all", "challenger", False)]
    assert (tally.requests, tally.errors, tally.refused, tally.characters) == (4, 1, 1, 12)
    assert list(tally.latest) == [0.5, 0.5]


def test_memory_does_not_grow_with_requests() -> None:
    tallies = Tallies(request() for _ in range(5000))
    assert len(tallies[Key("all", "challenger", False)].latest) == 1000

"""Spike scores with known values, and how many steps may be given up."""

from __future__ import annotations

import math
import random

import msgspec
import pytest

from cegm.lab.records import GuardState
from cegm.lab.train.guard import FEWEST, SKIPS_IN_A_ROW, SPIKE, WINDOW, Guard, SpikeScore


def scored(values: list[float]) -> list[float]:
    score = SpikeScore()
    return [score.add(value) for value in values]


def test_the_score_is_the_distance_from_the_median_in_robust_deviations() -> None:
    past = [1.0, 2.0, 3.0, 4.0, 5.0] * 4  # median 3, median absolute deviation 1
    assert scored([*past, 3.0 + 10 * 1.4826])[-1] == pytest.approx(10.0)
    assert scored([*past, 1.0])[-1] == pytest.approx(-2 / 1.4826)


def test_there_is_no_score_before_there_is_a_past() -> None:
    scores = scored([1.0] * (FEWEST + 1))
    assert all(math.isnan(score) for score in scores[:FEWEST])
    assert scores[FEWEST] == 0.0


def test_a_flat_past_makes_a_spike_of_a_change_that_matters_alone() -> None:
    flat = [2.0] * FEWEST
    assert scored([*flat, 2.0 * (1 + 5e-3)])[-1] == pytest.approx(5.0)
    assert scored([*flat, 2.02])[-1] == pytest.approx(10.0)
    assert math.isfinite(scored([*([0.0] * FEWEST), 1.0])[-1])


def test_one_spike_does_not_hide_the_next_and_the_window_forgets() -> None:
    draw = random.Random(0)
    past = [draw.gauss(3.0, 0.1) for _ in range(60)]
    first, second = (scored([*past, *before, 5.0])[-1] for before in ([], [50.0, 50.0, 50.0]))
    assert second > 0.8 * first > SPIKE
    assert scored([100.0] * 10 + [1.0] * WINDOW + [1.0])[-1] == 0.0


def test_noise_and_a_falling_loss_are_no_spikes() -> None:
    draw = random.Random(1)
    guard = Guard()
    for step in range(2000):
        guard.watch(2.0 + 4.0 * math.exp(-step / 100) + draw.gauss(0.0, 0.05), math.exp(draw.gauss(0.0, 0.2)))
    assert guard.spikes == 0


def test_a_gradient_spike_is_told_once_and_counted_while_it_lasts() -> None:
    draw = random.Random(2)
    guard = Guard()

    def step(factor: float = 1.0) -> bool:
        return guard.watch(3.0 + draw.gauss(0, 0.05), factor * math.exp(draw.gauss(0.0, 0.1)))

    assert not any(step() for _ in range(50))
    assert [step(100.0), step(100.0), step(), step(100.0)] == [True, False, False, True]
    assert guard.spikes == 3
    assert guard.score > SPIKE


def test_a_gradient_of_zero_is_no_error() -> None:
    guard = Guard()
    for _ in range(FEWEST + 1):
        assert not guard.watch(1.0, 0.0)


def test_stop_never_skips() -> None:
    guard = Guard("stop")
    assert not guard.skip(10**6)
    assert guard.skipped == 0


def test_three_in_a_row_and_not_one_more() -> None:
    guard = Guard("skip")
    assert [guard.skip(step) for step in range(1000, 1004)] == [True] * SKIPS_IN_A_ROW + [False]
    guard.watch(1.0, 1.0)
    assert guard.skip(1004)


def test_three_and_a_hundredth_of_the_steps_in_all() -> None:
    guard = Guard("skip")
    stopped = None
    for step in range(1, 2000):  # every second step is bad
        guard.watch(1.0, 1.0)
        if step % 2 == 0 and not guard.skip(step):
            stopped = step
            break
    assert (stopped, guard.skipped) == (10, 4)  # 3 + .01 x 8 = 3.08 lets a fourth in, 3 + .01 x 10 no fifth


def test_a_resumed_guard_goes_on_as_it_would_have() -> None:
    draw = random.Random(3)
    numbers = [(draw.gauss(3, 0.1), math.exp(draw.gauss(0, 0.1))) for _ in range(200)]
    numbers[120] = (9.0, 50.0)
    whole, first, second = Guard("skip"), Guard("skip"), Guard("skip")
    expected = [(whole.watch(*pair), whole.score) for pair in numbers]
    for pair in numbers[:121]:
        first.watch(*pair)
    first.skip(121)
    second.restore(msgspec.json.decode(msgspec.json.encode(first.state()), type=GuardState))
    assert [(second.watch(*pair), second.score) for pair in numbers[121:]] == expected[121:]
    assert (second.skipped, second.spikes) == (1, whole.spikes)

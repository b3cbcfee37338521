"""Success goes on, failure goes back, and what is neither waits."""

from __future__ import annotations

import random

import pytest

from cegm.lab.rollout.gates import beyond_doubt, judge, outcome
from cegm.lab.rollout.rollout_config import RolloutConfig
from cegm.lab.rollout.tallies import Key, Tallies, Tally

CONFIG = RolloutConfig(stage_requests=400, most_errors=0.02, slower=1.5)


def counted(
    errors: int, times: list[float], champions: list[float], requests: int = 400, stage: str = "canary 5"
) -> Tallies:
    tallies = Tallies()
    challenger, champion = Tally(requests=requests, errors=errors), Tally(requests=len(champions))
    challenger.latest.extend(times)
    challenger.recent.extend(number < errors for number in range(requests))
    champion.latest.extend(champions)
    tallies[Key(stage, "challenger", stage == "shadow")] = challenger
    tallies[Key(stage, "champion", False)] = champion
    return tallies


def times(scale: float, count: int = 400) -> list[float]:
    draw = random.Random(count)
    return [scale * (1 + draw.random()) for _ in range(count)]


@pytest.mark.parametrize(
    ("errors", "scale", "expected"),
    [
        (0, 1.0, "success"),
        (2, 1.0, "success"),
        (4, 1.0, "inconclusive"),
        (30, 1.0, "failure"),
        (0, 1.5, "inconclusive"),
        (0, 2.0, "failure"),
        (4, 2.0, "failure"),
    ],
)
@pytest.mark.parametrize("stage", ["shadow", "canary 5"])
def test_outcomes(errors: int, scale: float, expected: str, stage: str) -> None:
    found = judge(counted(errors, times(scale), times(1.0, 800), stage=stage), stage, CONFIG)
    assert outcome(found) == expected
    assert all("against" in str(each) for each in found)


def test_nothing_is_judged_before_its_time() -> None:
    assert judge(counted(0, times(1.0), times(1.0), requests=399), "canary 5", CONFIG) == []


@pytest.mark.parametrize(("mine", "champions"), [(times(1.0, 20), times(1.0)), (times(1.0), []), ([], times(1.0))])
def test_too_few_times_are_for_a_person(mine: list[float], champions: list[float]) -> None:
    assert outcome(judge(counted(0, mine, champions), "canary 5", CONFIG)) == "inconclusive"


def test_a_dead_challenger_is_known_within_a_few_requests() -> None:
    assert beyond_doubt(counted(1, [], [], requests=1), "canary 5", RolloutConfig(most_errors=0.1)) is None
    found = beyond_doubt(counted(6, [], [], requests=6), "canary 5", CONFIG)
    assert found is not None
    assert found.outcome == "failure"
    assert beyond_doubt(counted(1, [], [], requests=200), "canary 5", RolloutConfig(most_errors=0.0)) is not None
    assert beyond_doubt(counted(9, [], [], requests=9), "canary 5", RolloutConfig(most_errors=1.0)) is None
    assert beyond_doubt(counted(0, [], [], requests=0), "canary 5", CONFIG) is None


def test_a_challenger_that_dies_after_a_long_time_is_known_as_soon() -> None:
    tallies = counted(0, [], [], requests=100_000)
    recent = tallies[Key("canary 5", "challenger", False)].recent
    errors = 0
    while beyond_doubt(tallies, "canary 5", CONFIG) is None:
        recent.append(True)
        errors += 1
    assert 10 < errors < 30


def test_what_keeps_to_the_limit_is_hardly_ever_beyond_doubt() -> None:
    """Forty thousand requests, looked at after each, at an error rate just at the limit."""
    draw, tallies = random.Random(1), counted(0, [], [], requests=0)
    recent = tallies[Key("canary 5", "challenger", False)].recent
    for _ in range(40_000):
        recent.append(draw.random() < CONFIG.most_errors)
        assert beyond_doubt(tallies, "canary 5", CONFIG) is None

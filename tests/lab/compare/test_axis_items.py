"""Items joined one to one, McNemar by seed, values of runs, and intervals of every level."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from cegm.lab.compare import axis_items, item_statistics

PAIR = ("cegm", "adamw")


def items(seeds: int, scores: dict[str, float], levels: tuple[int, ...] = (1, 2), count: int = 40) -> pd.DataFrame:
    """Right or wrong answers of methods that are right with these probabilities; every seed is asked the same."""
    rng = np.random.default_rng(0)
    asked = list(itertools.product(levels, range(count)))
    frames = [
        pd.DataFrame(asked, columns=["level", "item"]).assign(
            method=method, seed=seed, score=(rng.random(len(asked)) < chance).astype(float)
        )
        for (method, chance), seed in itertools.product(scores.items(), range(seeds))
    ]
    whole = pd.concat(frames, ignore_index=True).assign(axis="steps", subset="", chance=0.5, role="main")
    return whole.assign(cluster=whole["level"].astype(str) + "-" + whole["item"].astype(str))


def test_items_are_joined_within_seed_subset_and_level_whatever_their_order() -> None:
    own = items(2, {"cegm": 0.9, "adamw": 0.1})
    shuffled = own.sample(frac=1.0, random_state=1)
    both = axis_items.joined(shuffled, PAIR, [0, 1])
    assert len(both) == 2 * 2 * 40
    means = own.groupby(["method", "seed", "level"])["score"].mean()
    by_cell = both.groupby(["seed", "level"])["difference"].mean()
    assert by_cell.tolist() == pytest.approx((means["cegm"] - means["adamw"]).tolist())
    assert set(axis_items.joined(own, PAIR, [1])["seed"]) == {1}


def test_a_seed_without_items_leaves_the_axis_unjudged() -> None:
    own = items(3, {"cegm": 0.9, "adamw": 0.1})
    both = axis_items.joined(own[(own["method"] != "cegm") | (own["seed"] != 2)], PAIR, [0, 1, 2])
    assert axis_items.item_effect(both, [0, 1, 2]) is None
    assert axis_items.item_effect(both, [0, 1]) is not None
    assert axis_items.item_effect(pd.DataFrame(), []) is None


def test_mcnemar_by_seed_counts_what_only_one_side_gets_right() -> None:
    first = [1.0] * 10 + [0.0] * 2
    second = [1.0] * 2 + [0.0] * 8 + [1.0] * 1 + [0.0] * 1
    both = pd.DataFrame({"seed": 3, "score": first, "score_other": second})
    (found,) = axis_items.item_tests(both)
    # Exact two-sided binomial: 8 against 1 of 9, 2 * (1 + 9) / 2**9.
    assert found == {"seed": 3, "first_only": 8, "second_only": 1, "p": pytest.approx(20 / 512)}


def test_mcnemar_is_for_right_and_wrong_only() -> None:
    own = items(2, {"cegm": 0.9, "adamw": 0.1})
    assert [test["seed"] for test in axis_items.item_tests(axis_items.joined(own, PAIR, [0, 1]))] == [0, 1]
    bits = own.assign(score=own["score"] + 0.5)
    assert axis_items.item_tests(axis_items.joined(bits, PAIR, [0, 1])) == []
    assert axis_items.item_tests(pd.DataFrame()) == []


def test_the_value_of_a_run_is_the_mean_over_its_levels() -> None:
    own = pd.DataFrame({"method": "cegm", "seed": 0, "level": [1, 1, 1, 2], "score": [1.0, 0.0, 1.0, 0.0]})
    assert axis_items.axis_values(own) == {("cegm", 0): pytest.approx((2 / 3 + 0) / 2)}
    assert axis_items.axis_values(pd.DataFrame()) == {}


@pytest.mark.parametrize("seeds", [3, 12])
def test_every_level_has_the_interval_of_its_own_items(seeds: int) -> None:
    own = items(seeds, {"cegm": 0.8, "adamw": 0.4})
    cells = axis_items.axis_levels(own, list(PAIR), {PAIR: range(seeds)})["steps"]
    assert [cell["level"] for cell in cells] == [1, 2]
    for cell in cells:
        (difference,) = cell["differences"]
        of_level = axis_items.joined(own[own["level"] == cell["level"]], PAIR, range(seeds))
        alone = item_statistics.item_difference(of_level)
        ends = {"low": alone.low, "high": alone.high}
        assert difference == {"pair": list(PAIR), "mean": alone.estimate, **ends, "points": list(alone.points)}
        assert len(difference["points"]) == seeds
        if seeds == 3:
            assert (difference["low"], difference["high"]) == (None, None)
        else:
            assert 0 < difference["low"] < difference["mean"] < difference["high"]
        assert difference["mean"] == pytest.approx(cell["methods"]["cegm"]["mean"] - cell["methods"]["adamw"]["mean"])


def test_one_seed_has_a_difference_and_no_interval_and_none_has_neither() -> None:
    own = items(2, {"cegm": 0.8, "adamw": 0.4})
    cell = axis_items.axis_levels(own, list(PAIR), {PAIR: [1]})["steps"][0]
    (difference,) = cell["differences"]
    assert (difference["low"], difference["high"]) == (None, None)
    assert difference["mean"] != 0
    assert axis_items.axis_levels(own, list(PAIR), {PAIR: []})["steps"][0]["differences"] == []

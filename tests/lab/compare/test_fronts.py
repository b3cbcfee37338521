"""Fronts whose answers are known: read at equal new loss, paired by seed, and silent beyond the rates that were tried."""

import math

import numpy as np
import pytest

pytest.importorskip("statsmodels")

from cegm.lab.compare.fronts import SHARES, Ending, entry, forgotten_at, front, target

BEFORE = 4.0
PAIR = ("cegm", "adamw")


def along(scale, losses=(3.8, 3.5, 3.0, 2.5, 2.2, 2.0), power=2.0):
    """A front on which so much is forgotten for a gain, at rising rates."""
    return [Ending(10.0**place, new, scale * (BEFORE - new) ** power) for place, new in enumerate(losses)]


def read(fronts, share=0.5, as_ratio=True, pair=PAIR):
    before = {seed: BEFORE for _, seed in fronts}
    return entry(fronts, before, pair, share, as_ratio)


def of_seeds(own, others):
    return {
        **{("cegm", seed): endings for seed, endings in enumerate(own)},
        **{("adamw", seed): endings for seed, endings in enumerate(others)},
    }


@pytest.mark.parametrize("seeds", [1, 3, 5, 8])
@pytest.mark.parametrize("share", SHARES)
def test_a_copy_of_the_reference_has_ratio_one_and_no_evidence(seeds, share):
    same = [along(0.1 * (seed + 1)) for seed in range(seeds)]
    found = read(of_seeds(same, same), share)
    assert found["kind"] == "ratio"
    assert found["effect"] == 1.0
    assert not found["beyond_chance"]
    assert found["n"] == seeds


@pytest.mark.parametrize("share", SHARES)
def test_who_forgets_half_everywhere_has_half_at_every_share_whatever_the_rates(share):
    """A linear front is read exactly between rates, so other rates on it change nothing."""
    own = [along(0.05, (3.9, 3.3, 2.4, 1.9), power=1) for _ in range(5)]
    found = read(of_seeds(own, [along(0.1, power=1) for _ in range(5)]), share)
    assert found["effect"] == pytest.approx(0.5)
    assert found["interval"] == pytest.approx([0.5, 0.5])
    assert found["beyond_chance"]


def test_the_ratio_is_the_geometric_mean_over_seeds_with_points_below_five_and_an_interval_from_five_on():
    scales = [0.02, 0.03, 0.04, 0.05, 0.06]
    for seeds in (4, 5):
        own, others = [along(s) for s in scales[:seeds]], [along(0.1)] * seeds
        found = read(of_seeds(own, others))
        assert found["effect"] == pytest.approx(np.exp(np.log(np.divide(scales[:seeds], 0.1)).mean()))
        assert found["points"] == pytest.approx(np.divide(scales[:seeds], 0.1))
        assert (found["interval"] is None) == (seeds < 5)
    low, high = found["interval"]
    assert low < found["effect"] < high < 1


def test_seeds_are_paired_each_with_its_own_gain_and_reference():
    """The second seed's AdamW gains and forgets twice as much: read without pairing, the ratio would not be a half."""
    long = [Ending(e.rate, BEFORE - 2 * (BEFORE - e.new), 2 * e.forgotten) for e in along(0.1, power=1)]
    half = [[Ending(e.rate, e.new, e.forgotten / 2) for e in endings] for endings in (along(0.1, power=1), long)]
    found = read(of_seeds(half, [along(0.1, power=1), long]))
    assert found["points"] == pytest.approx([0.5, 0.5])
    assert target(long, BEFORE, 0.5) == pytest.approx(2.0)


def test_points_that_are_not_monotone_are_made_so_by_who_learned_more():
    endings = [Ending(1, 3.0, 0.3), Ending(2, 2.5, 0.1), Ending(3, 2.0, 0.5)]
    losses, forgotten = front(endings)
    assert losses.tolist() == [3.0, 2.5, 2.0]
    assert forgotten.tolist() == [0.1, 0.1, 0.5]
    assert forgotten_at(endings, 2.25) == pytest.approx(0.3)
    assert front(endings[::-1])[1].tolist() == forgotten.tolist()


@pytest.mark.parametrize("diverged", [Ending(1e9, 3.9, 7.0), Ending(1e9, math.nan, math.nan), Ending(1e9, 2.1, 9.0)])
def test_a_rate_that_diverged_says_nothing_and_reaches_nowhere(diverged):
    endings = along(0.1, (3.0, 2.5, 2.0))
    for new in (3.5, 3.0, 2.6, 2.0):
        assert forgotten_at([*endings, diverged], new) == pytest.approx(forgotten_at(endings, new), nan_ok=True)
    assert math.isnan(forgotten_at([*endings, diverged], 3.5))
    assert target([*endings, diverged], BEFORE, 0.5) == target(endings, BEFORE, 0.5) == pytest.approx(3.0)


@pytest.mark.parametrize("new", [3.1, 1.9])
def test_nothing_is_said_beyond_the_rates_that_were_tried(new):
    assert math.isnan(forgotten_at([Ending(1, 3.0, 0.3), Ending(2, 2.0, 0.5)], new))
    assert math.isnan(forgotten_at([], new))


def test_a_method_whose_rates_do_not_reach_to_both_sides_gets_a_dash_there_and_numbers_elsewhere():
    fronts = of_seeds([along(0.05, (2.9, 2.6))] * 2, [along(0.1)] * 2)
    found = {share: read(fronts, share)["effect"] for share in SHARES}
    assert [found[share] is not None for share in SHARES] == [False, False, False, False]
    fronts = of_seeds([along(0.05, (3.2, 2.6))] * 2, [along(0.1)] * 2)
    found = {share: read(fronts, share)["effect"] for share in SHARES}
    assert [found[share] is not None for share in SHARES] == [False, True, False, False]


@pytest.mark.parametrize("missing", [("cegm", 1), ("adamw", 1)])
def test_a_seed_that_is_missing_is_left_out_and_the_others_are_read(missing):
    fronts = of_seeds([along(0.05), along(0.01), along(0.05)], [along(0.1)] * 3)
    del fronts[missing]
    found = entry(fronts, dict.fromkeys(range(3), BEFORE), PAIR, 0.5, True)
    assert found["seeds"] == [0, 2]
    assert found["points"] == pytest.approx([0.5, 0.5])


def test_a_reference_that_gains_nothing_sets_no_target():
    fronts = of_seeds([along(0.05)], [[Ending(1, BEFORE, 0.1), Ending(2, BEFORE + 1, 0.2)]])
    assert read(fronts)["n"] == 0
    assert read(fronts)["effect"] is None


def test_where_one_of_both_forgot_nothing_the_difference_stands_in_place_of_the_ratio():
    spared = [Ending(e.rate, e.new, e.forgotten - 0.5) for e in along(0.1)]
    found = read(of_seeds([spared] * 2, [along(0.1)] * 2))
    assert found["kind"] == "difference"
    assert found["effect"] == pytest.approx(-0.5)
    assert read(of_seeds([along(0.05)] * 2, [along(0.1)] * 2), as_ratio=False)["kind"] == "difference"

"""Items joined one to one and within seeds: weights, intervals that cover, what shared items do to them, and McNemar by seed."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cegm.lab.compare import item_statistics, seed_statistics


def items_frame(
    rng: np.random.Generator, seeds: int, shared: bool, effect: float = 0.0, clusters: int = 20
) -> pd.DataFrame:
    """Two items per cluster at each of two levels; clusters are common to the seeds, or belong to one of them."""
    common = rng.normal(0, 0.3, clusters)
    parts = []
    for seed in range(seeds):
        offsets = common if shared else rng.normal(0, 0.3, clusters)
        for level in (512, 1024):
            cluster = np.repeat(np.arange(clusters), 2)
            noise = rng.normal(0, 0.4, 2 * clusters) + rng.normal(0, 0.05)
            parts.append(
                pd.DataFrame(
                    {
                        "seed": seed,
                        "level": level,
                        "cluster": [f"{name}" if shared else f"{seed}-{name}" for name in cluster],
                        "difference": effect + offsets[cluster] + noise,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def test_item_estimate_weighs_levels_equally() -> None:
    items = pd.DataFrame(
        {
            "seed": [0, 0, 0, 1, 1, 1],
            "level": [512, 512, 1024] * 2,
            "cluster": ["a", "b", "a"] * 2,
            "difference": [1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        }
    )
    result = item_statistics.item_difference(items)
    assert result.estimate == pytest.approx((0.25 + 1.0) / 2)
    assert result.seeds == 2


@pytest.mark.parametrize(("seeds", "shared", "runs"), [(3, True, 300), (3, False, 200), (9, True, 100)])
def test_coverage_of_the_item_interval(seeds: int, shared: bool, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_statistics, "ITEM_RESAMPLES", 500)
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(runs):
        covered += not item_statistics.item_difference(items_frame(rng, seeds, shared)).beyond_chance
    assert covered / runs >= 0.92


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seeds", [2, 4, 5])
def test_too_few_seeds_for_an_interval_are_shown_one_by_one(seeds: int, shared: bool) -> None:
    items = items_frame(np.random.default_rng(3), seeds, shared)
    result = item_statistics.item_difference(items)
    assert (result.low is None, result.smallest_detectable is None) == (seeds < 5, seeds < 5)
    by_level = items.groupby(["seed", "level"])["difference"].mean()
    assert result.points == pytest.approx(by_level.groupby("seed").mean().tolist())
    assert result.estimate == pytest.approx(sum(result.points) / seeds)


@pytest.mark.parametrize("shared", [True, False])
def test_the_smallest_detectable_difference_is_found_four_times_in_five(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found: p at most .05, and an interval without zero, as the verdict asks."""
    monkeypatch.setattr(item_statistics, "ITEM_RESAMPLES", 500)
    rng, seeds = np.random.default_rng(7), seed_statistics.CLAIM_SEEDS + 1
    stated = [item_statistics.item_difference(items_frame(rng, seeds, shared)).smallest_detectable for _ in range(50)]
    effect = float(np.mean([each for each in stated if each is not None]))
    found = 0
    for _ in range(200):
        result = item_statistics.item_difference(items_frame(rng, seeds, shared, effect))
        assert result.low is not None
        assert result.p is not None
        found += result.low > 0 and result.p <= 0.05
    assert found / 200 == pytest.approx(0.8, abs=0.09)  # three standard errors


def test_item_interval_without_shared_clusters_is_that_of_the_seeds() -> None:
    items = items_frame(np.random.default_rng(6), 6, shared=False)
    per_seed = items.groupby("seed")["difference"].mean().tolist()
    expected, result = seed_statistics.paired_difference(per_seed, [0.0] * 6), item_statistics.item_difference(items)
    assert (result.estimate, result.low, result.high) == pytest.approx((expected.estimate, expected.low, expected.high))


def test_two_way_interval_of_a_table_without_cluster_effects_by_hand() -> None:
    """With identical clusters the seed effects are all there is: t over seeds."""
    values = [0.1, 0.2, 0.6, 0.3, 0.4]
    rows = [(seed, 512, cluster, value) for seed, value in enumerate(values) for cluster in "abc"]
    result = item_statistics.item_difference(pd.DataFrame(rows, columns=["seed", "level", "cluster", "difference"]))
    low, high, _ = seed_statistics.mean_interval(np.array(values))
    assert (result.low, result.high) == pytest.approx((low, high))


def test_shared_items_widen_the_interval_that_seeds_alone_would_give() -> None:
    """What all seeds' items have in common is invisible to the spread between seeds."""
    items = items_frame(np.random.default_rng(2), 9, shared=True)
    result = item_statistics.item_difference(items)
    low, high, _ = seed_statistics.mean_interval(items.groupby("seed")["difference"].mean().to_numpy())
    assert result.low is not None
    assert result.high is not None
    assert result.high - result.low > 1.3 * (high - low)


def test_item_difference_does_not_depend_on_row_order() -> None:
    items = items_frame(np.random.default_rng(4), 5, shared=True, effect=0.5)
    shuffled = items.sample(frac=1, random_state=1)
    first, second = item_statistics.item_difference(items), item_statistics.item_difference(shuffled)
    assert (first.estimate, first.low, first.p) == pytest.approx((second.estimate, second.low, second.p))


def test_no_items_is_an_error() -> None:
    with pytest.raises(ValueError, match="same items"):
        item_statistics.item_difference(pd.DataFrame({"seed": [], "level": [], "cluster": [], "difference": []}))


def mcnemar(both: int, only_first: int, only_second: int, neither: int) -> tuple[int, int, float]:
    first = [1.0] * (both + only_first) + [0.0] * (only_second + neither)
    second = [1.0] * both + [0.0] * only_first + [1.0] * only_second + [0.0] * neither
    return item_statistics.mcnemar(np.array(first), np.array(second))


def test_mcnemar_of_the_approval_ratings() -> None:
    """Agresti 1990, Categorical Data Analysis, p. 350; chi-square 16.818 and p as R's mcnemar.test prints them."""
    assert mcnemar(794, 150, 86, 570) == (150, 86, pytest.approx(4.115e-05, rel=1e-3))


def test_exact_mcnemar_of_airway_reactions_before_and_after_transplantation() -> None:
    """Bentur et al. 2009 in Fagerland, Lydersen and Laake 2013 (BMC Med. Res. Methodol. 13:91), table 1: p = .070."""
    assert mcnemar(1, 1, 7, 12) == (1, 7, pytest.approx(0.070, abs=0.0005))


def test_mcnemar_is_exact_below_25_discordant_items_and_certain_of_nothing_without_any() -> None:
    assert mcnemar(5, 16, 8, 5)[2] == pytest.approx(stats.binomtest(8, 24).pvalue)
    assert mcnemar(5, 17, 8, 5)[2] == pytest.approx(stats.chi2.sf((17 - 8 - 1) ** 2 / 25, 1))
    assert mcnemar(5, 0, 0, 5)[2] == 1.0


def test_a_lead_on_shared_items_is_no_lead_on_all_such_items() -> None:
    """Twelve seeds that answer the same eight clusters: the sign-flip alone takes the clusters' luck for an effect."""
    rng = np.random.default_rng(8)
    found, alone = [], []
    for _ in range(150):
        differences = rng.normal(0, 0.2, 8) + rng.normal(0, 0.2, (12, 8))
        alone.append(seed_statistics.sign_flip_p(differences.mean(axis=1)))
        rows = [(s, 0, c, differences[s, c]) for s in range(12) for c in range(8)]
        items = pd.DataFrame(rows, columns=["seed", "level", "cluster", "difference"])
        p = item_statistics.item_difference(items).p
        assert p is not None
        found.append(p)
    assert np.mean(np.array(alone) <= 0.05) > 0.3
    assert np.mean(np.array(found) <= 0.05) <= 0.09  # .05 plus two standard errors


def test_items_without_effects_of_their_own_have_the_p_of_the_seeds_or_a_larger_one() -> None:
    items = items_frame(np.random.default_rng(6), 9, shared=True, effect=0.02)
    p = item_statistics.item_difference(items).p
    assert p is not None
    assert p >= seed_statistics.sign_flip_p(items.groupby("seed")["difference"].mean().to_numpy())


PAIR = ("cegm", "adamw")


def answered(seeds: int, scores: dict[str, float], levels: tuple[int, ...] = (1, 2), count: int = 40) -> pd.DataFrame:
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
    own = answered(2, {"cegm": 0.9, "adamw": 0.1})
    shuffled = own.sample(frac=1.0, random_state=1)
    both = item_statistics.joined(shuffled, PAIR, [0, 1])
    assert len(both) == 2 * 2 * 40
    means = own.groupby(["method", "seed", "level"])["score"].mean()
    by_cell = both.groupby(["seed", "level"])["difference"].mean()
    assert by_cell.tolist() == pytest.approx((means["cegm"] - means["adamw"]).tolist())
    assert set(item_statistics.joined(own, PAIR, [1])["seed"]) == {1}


def test_a_seed_without_items_leaves_the_axis_unjudged() -> None:
    own = answered(3, {"cegm": 0.9, "adamw": 0.1})
    both = item_statistics.joined(own[(own["method"] != "cegm") | (own["seed"] != 2)], PAIR, [0, 1, 2])
    assert item_statistics.item_effect(both, [0, 1, 2]) is None
    assert item_statistics.item_effect(both, [0, 1]) is not None
    assert item_statistics.item_effect(pd.DataFrame(), []) is None


def test_mcnemar_by_seed_counts_what_only_one_side_gets_right() -> None:
    first = [1.0] * 10 + [0.0] * 2
    second = [1.0] * 2 + [0.0] * 8 + [1.0] * 1 + [0.0] * 1
    both = pd.DataFrame({"seed": 3, "score": first, "score_other": second})
    (found,) = item_statistics.item_tests(both)
    # Exact two-sided binomial: 8 against 1 of 9, 2 * (1 + 9) / 2**9.
    assert found == {"seed": 3, "first_only": 8, "second_only": 1, "p": pytest.approx(20 / 512)}


def test_mcnemar_is_for_right_and_wrong_only() -> None:
    own = answered(2, {"cegm": 0.9, "adamw": 0.1})
    assert [test["seed"] for test in item_statistics.item_tests(item_statistics.joined(own, PAIR, [0, 1]))] == [0, 1]
    bits = own.assign(score=own["score"] + 0.5)
    assert item_statistics.item_tests(item_statistics.joined(bits, PAIR, [0, 1])) == []
    assert item_statistics.item_tests(pd.DataFrame()) == []


def test_the_value_of_a_run_is_the_mean_over_its_levels() -> None:
    own = pd.DataFrame({"method": "cegm", "seed": 0, "level": [1, 1, 1, 2], "score": [1.0, 0.0, 1.0, 0.0]})
    assert item_statistics.axis_values(own) == {("cegm", 0): pytest.approx((2 / 3 + 0) / 2)}
    assert item_statistics.axis_values(pd.DataFrame()) == {}


@pytest.mark.parametrize("seeds", [3, 12])
def test_every_level_has_the_interval_of_its_own_items(seeds: int) -> None:
    own = answered(seeds, {"cegm": 0.8, "adamw": 0.4})
    cells = item_statistics.axis_levels(own, list(PAIR), {PAIR: range(seeds)})["steps"]
    assert [cell["level"] for cell in cells] == [1, 2]
    for cell in cells:
        (difference,) = cell["differences"]
        of_level = item_statistics.joined(own[own["level"] == cell["level"]], PAIR, range(seeds))
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
    own = answered(2, {"cegm": 0.8, "adamw": 0.4})
    cell = item_statistics.axis_levels(own, list(PAIR), {PAIR: [1]})["steps"][0]
    (difference,) = cell["differences"]
    assert (difference["low"], difference["high"]) == (None, None)
    assert difference["mean"] != 0
    assert item_statistics.axis_levels(own, list(PAIR), {PAIR: []})["steps"][0]["differences"] == []

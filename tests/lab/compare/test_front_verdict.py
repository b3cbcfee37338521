"""`front.json` of runs whose ends are known: who forgets less, on which seeds, and with which word."""

import pytest

pytest.importorskip("statsmodels")
pytest.importorskip("trl")

from cegm.lab.compare.front_verdict import judge_fronts
from fronts import BEFORE, RATES, endings


def judged(**made):
    return judge_fronts(endings(**made), dict.fromkeys(range(made.get("seeds", 2)), BEFORE))


def pairs(found, name):
    return next(measure for measure in found["measures"] if measure["name"] == name)["pairs"]


@pytest.mark.parametrize("seeds", [2, 5, 8])
def test_half_of_everything_is_a_half_at_every_share_and_better(seeds):
    for pair in pairs(judged(seeds=seeds), "own text"):
        assert pair["pair"] == ["cegm", "adamw"]
        assert pair["kind"] == "ratio"
        assert pair["effect"] == pytest.approx(0.5)
        assert pair["word"] == "better"
        assert pair["screening"] == (seeds < 8)
        assert (pair["interval"] is None) == (seeds < 5)


def test_a_copy_of_the_reference_is_neither_better_nor_worse():
    same = [
        {**end, "method": method}
        for end in endings(seeds=8)
        if end["method"] == "adamw"
        for method in ("adamw", "cegm")
    ]
    for measure in judge_fronts(same, dict.fromkeys(range(8), BEFORE))["measures"]:
        for pair in measure["pairs"]:
            assert pair["effect"] == {"ratio": 1.0, "difference": 0.0}[pair["kind"]]
            assert pair["word"] == "no evidence"


def test_text_of_its_own_comes_first_and_alone_decides_and_what_gained_has_a_difference():
    measures = judged()["measures"]
    assert [measure["name"] for measure in measures] == ["own text", "novels", "wiki", "lambada"]
    assert [measure["family"] for measure in measures] == ["primary", *["exploratory"] * 3]
    kinds = {measure["name"]: {pair["kind"] for pair in measure["pairs"]} for measure in measures}
    assert kinds == {"own text": {"ratio"}, "novels": {"ratio"}, "wiki": {"difference"}, "lambada": {"difference"}}


def test_a_rate_that_failed_is_missing_from_its_front_and_stays_in_the_file():
    found = judged(seeds=2, failed=(("cegm", 4, 1),))
    half = pairs(found, "own text")
    assert half[1]["seeds"] == [0, 1]  # read between rates below it
    assert half[3]["n"] == 2
    assert sum("error" in end for end in found["endings"]) == 1
    assert found["rates"]["cegm"] == list(RATES)


def test_a_method_is_not_better_where_it_failed_and_the_other_did_not():
    """On the last seed all rates of CEGM failed: it would have to count against it."""
    pair = pairs(judged(seeds=3, failed=tuple(("cegm", place, 2) for place in range(5))), "own text")[1]
    assert pair["seeds"] == [0, 1]
    assert pair["beyond_chance"]
    assert pair["word"] == "no evidence"


def test_without_a_loss_before_nothing_is_read():
    found = judge_fronts(endings(), {})
    assert {pair["effect"] for measure in found["measures"] for pair in measure["pairs"]} == {None}
    assert {pair["word"] for measure in found["measures"] for pair in measure["pairs"]} == {"no evidence"}

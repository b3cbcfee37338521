"""What two checkouts trained is held together to the bit."""

import copy

import golden
from cegm.lab.baselines import METHODS

BEFORE = {
    "runs": {"muon": {"losses": [(1.5).hex(), (1.25).hex()], "weights": "a"}, "cegm": {"losses": [], "weights": "b"}}
}


def test_the_first_step_that_differs_is_told():
    assert golden.differing(BEFORE, copy.deepcopy(BEFORE)) == []
    after = copy.deepcopy(BEFORE)
    after["runs"]["muon"]["losses"][1] = (1.25 + 2**-52).hex()
    assert golden.differing(BEFORE, after) == ["muon: step 2"]
    del after["runs"]["cegm"]
    assert golden.differing(BEFORE, after) == ["muon: step 2", "cegm: step of the last weights"]


def test_every_method_is_trained():
    assert set(METHODS) <= set(golden.RUNS)

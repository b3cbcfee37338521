"""Memory against sums by hand."""

from cegm.lab.forecast.memory import Memory, adamw_temporaries, refresh_temporaries, update_temporaries
from cegm.lab.forecast.weights import Weight


def matrix(name, outputs, inputs, context=0, demand=0):
    size = 4 * outputs * inputs
    return Weight(name, (outputs, inputs), size, 2 * size, pieces=((outputs, inputs, context, demand),))


def memory(**changes):
    plain = {
        "weights": 1,
        "gradients": 10,
        "state": 100,
        "gathered": 0,
        "activations": 1000,
        "contexts": 0,
        "mapping": 0,
        "temporaries": 0,
    }
    return Memory(**{**plain, "accumulates": False, **changes})


def test_the_peak_has_all_activations_or_all_gradients():
    assert memory().peak == 1 + 100 + 1000
    assert memory(accumulates=True).peak == 1 + 100 + 1000 + 10
    assert memory(contexts=800, mapping=500).peak == 1 + 100 + 10 + 800 + 500
    assert memory(temporaries=1500).peak == 1 + 100 + 10 + 1500
    assert memory(contexts=800, mapping=500, temporaries=1500).peak == 1 + 100 + 10 + 1500
    assert memory(gathered=70).peak == 1171


def test_equal_shapes_are_updated_together():
    assert update_temporaries([matrix("a", 4, 4), matrix("b", 4, 4), matrix("c", 4, 8)]) == 5 * (2 * 64) + 128
    assert update_temporaries([matrix("a", 4, 4, demand=2)]) == 6 * 64  # and the mapped one
    assert update_temporaries([]) == 0


def test_shapes_with_other_maps_are_updated_apart():
    assert update_temporaries([matrix("a", 4, 4, demand=2), matrix("b", 4, 4, demand=4)]) == 6 * 64 + 64


def test_a_refresh_takes_blocks_of_equal_shape_together():
    weights = [matrix("a", 8, 4, demand=2), matrix("b", 8, 16, demand=2), matrix("c", 8, 4, context=4)]
    assert refresh_temporaries(weights) == 5 * (2 * 4 * 8 * 2)
    assert refresh_temporaries([matrix("a", 8, 4)]) == 0


def test_adamw_goes_over_all_weights_at_once_on_accelerators_alone():
    assert adamw_temporaries([24.0, 100.0], "cuda") == 124
    assert adamw_temporaries([24.0, 100.0], "cpu") == 200
    assert adamw_temporaries([], "cpu") == 0

"""A small run of the simulation: the verdict is silent when nothing differs, and speaks when it says it would."""

import pytest

import simulate_verdict as simulation
from cegm.lab.compare.seed_statistics import smallest_detectable_difference


@pytest.mark.parametrize(
    ("seeds", "axes", "liking", "experiments"), [(8, 2, simulation.LIKING, 20), (12, simulation.AXES, 0.0, 3)]
)
def test_false_alarms_are_rare(seeds, axes, liking, experiments):
    design = simulation.Design(seeds, simulation.family(axes), liking=liking)
    found = simulation.false_alarms(design, experiments)
    assert found["experiments"] == experiments
    assert found["interval"][0] <= 0.05
    assert found["rate"] <= 0.15


def test_the_power_at_the_stated_difference_is_as_stated():
    found = simulation.power(8, simulation.family(1)[0], 60)
    exact = smallest_detectable_difference(simulation.SPREAD * 2**0.5, 8)
    assert found["lead"] == pytest.approx(exact, rel=0.25)
    assert found["rate"] == pytest.approx(0.8, abs=0.12)


def test_a_lead_is_given_to_the_subject_in_the_good_direction():
    lower, higher = simulation.family(2)
    for measure, sign in ((lower, -1), (higher, 1)):
        design = simulation.Design(8, (measure,), lead=0.5)
        assert [design.gain(measure, method) for method in design.methods] == [sign * 0.5, 0.0, 0.0]

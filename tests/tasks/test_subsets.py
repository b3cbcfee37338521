import pytest

from cegm.tasks.items import NotMeasured, Record, available, shuffled

RECORD = Record("axis", "real", "there", "1", "1", 0.0, 1.0, 1.0, 0.5)


def fails():
    raise NotMeasured("no such folder")


def test_what_is_there_is_measured_and_what_is_not_is_told():
    with pytest.warns(UserWarning, match="gone was not measured: no such folder"):
        assert available({"there": lambda: [RECORD], "gone": fails}) == [RECORD]


def test_nothing_there_is_not_measured():
    with pytest.raises(NotMeasured, match="first was not measured: no such folder; second was"):
        available({"first": fails, "second": fails})


def test_a_smaller_sample_is_part_of_a_larger_one_and_seeds_differ():
    things = list(range(100))
    assert shuffled(things, "a", 1) == shuffled(things, "a", 1) != shuffled(things, "a", 2)
    assert sorted(shuffled(things, "a", 1)) == things

"""Draws are the same for every model, even over groups, and what is missing is told."""

import random

import pytest

from cegm.lab.tasks.items import NotMeasured, Record, available, shuffled, spread

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


def test_draws_are_even_over_groups_and_of_each_member_once():
    groups = [["a"] * 1, [f"b{i}" for i in range(9)], [f"c{i}" for i in range(9)]]
    drawn = spread(groups, 9, random.Random(0))
    assert len(set(drawn)) == 9
    assert sum(name.startswith("b") for name in drawn) == sum(name.startswith("c") for name in drawn) == 4
    assert len(spread(groups, 100, random.Random(0))) == 19
    assert drawn == spread(groups, 9, random.Random(0))

"""Reasoning efficiency: both forms on trial, and the cost of a right answer."""

import math

import pytest

from cegm.lab.tasks import efficiency
from cegm.lab.tasks.items import NotMeasured, Record
from examinees import Oracle
from trials import DATA, on_trial, with_data


def test_the_generated_form():
    records = on_trial(efficiency.AXIS, "world", 60)
    assert len(records) == 10 * 60
    assert sorted({record.level for record in records}) == list(range(1, 11))
    assert len({record.cluster for record in records}) == len(records)


@with_data
def test_the_real_form():
    records = on_trial(efficiency.AXIS, DATA, 60)
    parts = {(record.subset, record.level, record.chance) for record in records}
    assert parts == {
        *(("babi", facts, 1 / 6) for facts in (1, 2, 3)),
        *((puzzle, count, 1 / count) for puzzle in efficiency.PUZZLES for count in (3, 5, 7)),
    }
    assert len(records) == 60 * len(parts)


def test_missing_sets_are_named_and_none_is_an_error(tmp_path):
    with pytest.raises(NotMeasured, match=r"babi qa1 was not measured.*seven_objects was not measured"):
        efficiency.AXIS.examine(Oracle(), tmp_path, 5, 0)


def record(score):
    return Record("efficiency", "generated", "", "1", "1", 1, score, 0.0, 0.25)


def test_cost_is_per_right_answer():
    cost = efficiency.cost_per_correct(6.0, 300, [record(1.0), record(0.0), record(1.0)])
    assert (cost.seconds, cost.tokens) == (3.0, 150.0)
    none = efficiency.cost_per_correct(6.0, 300, [record(0.0)])
    assert none == efficiency.Cost(math.inf, math.inf)

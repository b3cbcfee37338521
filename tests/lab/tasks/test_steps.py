"""Errors over ten steps: what is written down is what was chosen."""

import random

import pytest

from cegm.lab import world
from cegm.lab.tasks import steps
from cegm.lab.tasks.items import NotMeasured
from cegm.lab.tasks.steps import implied_wrong_steps
from examinees import Oracle
from trials import on_trial


def test_the_generated_form():
    records = on_trial(steps.AXIS, "world", 60)
    assert len(records) == 2 * 10 * 60
    assert {record.subset for record in records} == {"free", "forced"}
    assert {record.level for record in records} == set(range(1, 11))
    assert len({record.cluster for record in records}) == 60


def test_there_is_no_real_form(tmp_path):
    with pytest.raises(NotMeasured, match="ten steps"):
        steps.AXIS.examine(Oracle(), tmp_path, 2, 0)


class Stumbler(Oracle):
    """Chooses wrongly at the second call only, or is always undecided."""

    def __init__(self, undecided=False):
        self.heard, self.undecided = [], undecided

    def choose(self, choices):
        self.heard.append(choices)
        if self.undecided:
            return [[-1.0] * len(choice.options) for choice in choices]
        if len(self.heard) == 2:
            return [[-9.0, *[-1.0 - i for i in range(len(choice.options) - 1)]] for choice in choices]
        return super().choose(choices)


def test_the_free_one_reads_its_own_mistake_and_the_forced_one_the_truth():
    stumbler = Stumbler()
    records = steps.AXIS.examine(stumbler, "world", 3, 0)
    assert {record.level for record in records if record.score == 0} == {2}
    for index in range(3):
        told = world.journey(random.Random(steps.stable_seed("steps", 0, index)), 10)
        free, forced = stumbler.heard[-1][index], stumbler.heard[-1][3 + index]
        truth = told.context + "".join(s.instruction + s.options[0] + s.closing for s in told.steps[:9])
        assert forced.context == truth + told.steps[9].instruction
        second = told.steps[1]
        right, wrong = (second.instruction + second.options[i] + second.closing for i in (0, 1))
        before = told.context + told.steps[0].instruction + told.steps[0].options[0] + told.steps[0].closing
        assert free.context == before + wrong + forced.context.removeprefix(before + right)
    assert len(stumbler.heard) == 10


def test_who_cannot_decide_never_writes_the_truth_by_luck():
    stumbler = Stumbler(undecided=True)
    records = steps.AXIS.examine(stumbler, "world", 2, 0)
    assert all(record.score == 0 for record in records)
    assert stumbler.heard[1][0].context != stumbler.heard[1][2].context


def test_implied_curves_are_those_of_independent_errors():
    implied = implied_wrong_steps(0.9, 10)
    assert implied.apart == pytest.approx([0.1 * step for step in range(1, 11)])
    assert implied.carried[:3] == pytest.approx([0.1, 0.1 + 0.19, 0.1 + 0.19 + 0.271])
    for accuracy in (0.0, 1.0):
        edge = implied_wrong_steps(accuracy, 10)
        assert edge.apart == edge.carried == [(1 - accuracy) * step for step in range(1, 11)]


def test_implied_curves_agree_with_a_simulation():
    rng = random.Random(0)
    apart, carried = [0.0] * 10, [0.0] * 10
    for _ in range(20000):
        right = [rng.random() < 0.8 for _ in range(10)]
        for step in range(10):
            apart[step] += sum(not each for each in right[: step + 1]) / 20000
            carried[step] += sum(not all(right[: s + 1]) for s in range(step + 1)) / 20000
    implied = implied_wrong_steps(0.8, 10)
    assert implied.apart == pytest.approx(apart, abs=0.05)
    assert implied.carried == pytest.approx(carried, abs=0.1)

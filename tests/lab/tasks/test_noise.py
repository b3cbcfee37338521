"""Robustness to noise: both forms on trial; noise is nested and hides neither the answer nor the question."""

import random
from collections import defaultdict
from itertools import product
from statistics import fmean

import pytest
from rapidfuzz.distance import Levenshtein

from cegm.lab import world
from cegm.lab.tasks import noise
from cegm.lab.tasks.alterations import MARKS, content
from cegm.lab.tasks.items import NotMeasured
from examinees import Oracle
from trials import DATA, on_trial, with_data


class Listener(Oracle):
    def choose(self, choices):
        self.heard = choices
        return super().choose(choices)


def heard(source, items):
    """(record, choice) of all that is asked."""
    listener = Listener()
    records = noise.AXIS.examine(listener, source, items, 0)
    return list(zip(records, listener.heard, strict=True))


def test_the_generated_form():
    records = on_trial(noise.AXIS, "world", 90)
    assert len(records) == 5 * 90
    assert {record.level for record in records} == {0.0, 0.1, 0.2, 0.3, 0.4}
    assert len({record.cluster for record in records}) == 30


def test_without_noise_the_question_is_as_it_was_and_with_noise_what_matters_stays():
    asked = defaultdict(dict)
    for record, choice in heard("world", 60):
        asked[record.item][record.level] = choice
    for item, levels in asked.items():
        exam = world.recall_exam(random.Random(noise.stable_seed("noise", 0, int(item.split("-")[0]))))
        assert (levels[0.0].context, levels[0.0].options) == (exam.context, exam.options)
        for choice in levels.values():
            words = choice.context.split()
            assert words[-2:] == exam.context.split()[-2:]
            assert all(words.count(kept) == exam.context.split().count(kept) for kept in exam.protected)
            assert set(words) <= set(world.vocabulary())
        assert len({levels[share].context for share in (0.0, 0.2, 0.4)}) == 3, "noise adds nothing"


def test_noise_seeds_differ_and_noise_is_nested():
    for case in noise.cases("world", 30, 0):
        assert len(set(case.alterations)) == noise.NOISE_SEEDS
        for alterations in case.alterations:
            assert sorted(a.place + i for a in alterations for i in range(a.size)) == content(case.words)


def test_a_share_is_of_all_content_words():
    for case in noise.cases("world", 60, 0):
        whole = len(content(case.words))
        assert case.reaches
        for share in noise.SHARES:
            kept = set(case.words)
            changed = sum(word not in kept for word in case.text(0, share).split())
            lost = len(case.words) - len(case.text(0, share).split())
            assert changed + lost <= round(share * whole) + 1


def error_rates_rise(source, subsets):
    """From nothing, in edits of single characters that lead from a text to what became of it, per character."""
    rates = defaultdict(list)
    for case in noise.cases(source, 60, 0):
        clean = case.text(0, 0.0)
        for share, noise_seed in product(noise.SHARES, range(noise.NOISE_SEEDS)):
            rates[case.subset, share].append(Levenshtein.distance(clean, case.text(noise_seed, share)) / len(clean))
    for subset in subsets:
        means = [fmean(rates[subset, share]) for share in noise.SHARES]
        assert means[0] == 0
        assert means == sorted(means)
        assert 0.01 < means[-1] < 0.5


def test_error_rates_rise_from_nothing():
    error_rates_rise("world", [""])


@with_data
def test_the_real_form():
    records = on_trial(noise.AXIS, DATA, 60)
    assert {record.subset for record in records} == {"babi-qa1", "babi-qa2"}
    assert len(records) == 2 * 5 * 60
    assert {record.chance for record in records} == {1 / 6}
    error_rates_rise(DATA, ["babi-qa1", "babi-qa2"])
    for record, choice in heard(DATA, 60):
        words = [word.strip(MARKS) for word in choice.context.split()]
        question = choice.context.rsplit(". ", 1)[1]
        assert question.startswith("Where is ")
        assert question.endswith("? Answer:")
        clean = record.level == 0.0
        if clean:
            before = words
        else:
            kept = [option.strip() for option in choice.options]
            assert all(words.count(each) == before.count(each) for each in kept), "noise gives the answer away"
            assert len(words) == len(before)


def test_missing_sets_are_one_line_errors(tmp_path):
    with pytest.raises(NotMeasured, match="noise_en"):
        noise.AXIS.examine(Oracle(), tmp_path, 3, 0)

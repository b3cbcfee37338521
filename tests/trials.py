"""What every axis has to pass, whatever it asks: an oracle, a guesser, seeds, names, batches."""

import math
from collections import defaultdict
from pathlib import Path

import pytest

import models
from examinees import Guesser, Oracle

DATA = Path(__file__).parents[2] / "shared" / "data"
with_data = pytest.mark.skipif(not DATA.exists(), reason="the public sets are not here")


def everything_is_right(records):
    assert records
    return all(record.score == 1 and record.continuous > 0 for record in records)


def is_chance(records):
    """Whether the share of right answers is within the 99 % interval of what guessing gets."""
    expected = sum(record.chance for record in records)
    spread = math.sqrt(sum(record.chance * (1 - record.chance) for record in records))
    return abs(sum(record.score for record in records) - expected) < 2.58 * spread


def names_are_unique(records):
    names = [(record.subset, record.level, record.item) for record in records]
    return len(set(names)) == len(names)


def on_trial(axis, source, items):
    """Oracle, guesser, names and seeds of one form; returns the oracle's records."""
    records = axis.examine(Oracle(), source, items, 0)
    assert everything_is_right(records)
    assert names_are_unique(records)
    assert {record.axis for record in records} == {axis.name}
    assert {record.form for record in records} == {"generated" if source == "world" else "real"}
    assert is_chance(axis.examine(Guesser(1), source, items, 0))
    assert axis.examine(Guesser(2), source, items, 0) == axis.examine(Guesser(2), source, items, 0)
    return records


def batches_change_nothing(axis, items, positions=512):
    """A small random model answers the generated form the same one by one and sixteen at a time."""
    from cegm.lab.tasks.examinee import Examinee
    from cegm.lab.train.model import word_tokenizer

    tokenizer = word_tokenizer()
    model = models.llama(vocabulary=len(tokenizer))
    model.config.max_position_embeddings = positions
    one, many = (axis.examine(Examinee(model, tokenizer, size), "world", items, 0) for size in (1, 16))
    assert [record.item for record in one] == [record.item for record in many]
    assert [r.continuous for r in one] == pytest.approx([r.continuous for r in many], abs=1e-4)


def per_subset(records):
    counts = defaultdict(int)
    for record in records:
        counts[record.subset] += 1
    return dict(counts)

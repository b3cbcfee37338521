"""A tree of rows that begin alike: every row gets the logits it gets alone, in every architecture that can, and others are told apart."""

import pytest
import torch

pytest.importorskip("transformers")

from architectures import OTHERS, READERS, VOCABULARY, of
from cegm.lab.tasks.tree import Tree, packs, reads_trees

ROWS = [
    (3, 1, 4, 1, 5),
    (3, 1, 4),
    (3, 1, 4, 1, 9, 2, 6),
    (9, 2),
    (3, 2, 4, 1, 5),
    (6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8),
]


def alone(model, row):
    """Logits after the row, read by itself."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([row])).logits[0, -1]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("context", [(), (7, 7, 8, 9, 1, 2, 3)])
@pytest.mark.parametrize("name", READERS)
def test_rows_get_the_logits_that_they_get_alone(name, context, attention):
    model = of(READERS[name], attention)
    assert reads_trees(model)
    tree = Tree(model, context)
    for rows in (ROWS[:4], ROWS[4:]):  # the second time it grows
        found = tree.read([tree.add(row, anew=True)[-1] for row in rows])
        for row, logits in zip(rows, found, strict=True):
            assert logits.tolist() == pytest.approx(alone(model, context + row).tolist(), abs=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_who_cannot_read_trees_is_known(name):
    assert not reads_trees(of(OTHERS[name]))


def test_what_rows_begin_with_is_read_once():
    model, read = of(READERS["gpt2"]), []
    model.register_forward_pre_hook(lambda _, args, given: read.append(given["input_ids"].shape), with_kwargs=True)
    tree = Tree(model)
    ends = [tree.add(row)[-1] for row in ROWS[:3]]
    assert [tree.missing(row) for row in (*ROWS[:3], (3, 1, 7), (4, 1))] == [0, 0, 0, 1, 2]
    tree.read(ends)
    tree.read([tree.add(ROWS[1], anew=True)[-1], tree.add(ROWS[4])[-1]])
    assert read == [(1, 5 + 3), (1, 1 + 4)]


def test_only_the_logits_that_are_wanted_are_made():
    tree = Tree(of(READERS["gpt2"]))
    path = tree.add(ROWS[-1])
    assert tree.read(path[-2:]).shape == (2, VOCABULARY)


def test_packs_hold_every_row_once_and_few_tokens():
    rows = [tuple((row * place) % 5 for place in range(1 + row % 9)) for row in range(50)]
    found = list(packs(rows, 12))
    assert sorted(index for pack, _ in found for index in pack) == list(range(50))
    for pack, tokens in found:
        beginnings = {rows[index][:end] for index in pack for end in range(1, len(rows[index]) + 1)}
        assert len(beginnings) == tokens <= 12
    assert list(packs([(1, 2, 3, 4), (1,)], 2)) == [([1], 1), ([0], 4)]
    assert list(packs([], 2)) == []

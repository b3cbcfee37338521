"""Rows written in step: equal to each row read anew, with rows that are dropped on the way."""

import pytest

pytest.importorskip("transformers")

from architectures import READERS, VOCABULARY, of
from cegm.lab.tasks.tree import Tree
from cegm.lab.tasks.writing import Rereader, Writer

ROWS = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8], [4], [4]]


def written(pen, tokens):
    return list(zip(*(pen.write() for _ in range(tokens)), strict=True))


@pytest.mark.parametrize("name", READERS)
def test_rows_of_any_length_are_continued_as_if_read_anew(name):
    model = of(READERS[name])
    found = written(Writer(Tree(model), ROWS), 12)
    assert found == written(Rereader(model, ROWS), 12)
    assert len(set(found)) == len(ROWS) - 1, "a model that says the same to all proves nothing"


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", [lambda model, rows: Writer(Tree(model), rows), Rereader])
def test_those_that_are_kept_go_on_unchanged(name, kind):
    model = of(READERS[name])
    whole = written(Rereader(model, ROWS), 8)
    pen = kind(model, ROWS)
    assert written(pen, 3) == [row[:3] for row in whole]
    pen.keep([2, 0])
    assert written(pen, 2) == [whole[2][3:5], whole[0][3:5]]
    pen.keep([1])
    assert written(pen, 3) == [whole[0][5:]]


def test_who_writes_on_in_a_tree_reads_what_is_new_and_writes_the_same():
    model = of(READERS["gpt2"])
    tree = Tree(model)
    written(Writer(tree, ROWS), 2)
    longer = [[*row, place % VOCABULARY] for place, row in enumerate(ROWS)]
    pen = Writer(tree, longer)
    assert written(pen, 3) == written(Rereader(model, longer), 3)
    assert pen.tokens == 3 * len(ROWS)

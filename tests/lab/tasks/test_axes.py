"""Every axis, whoever wrote it: its public sets are those that its code can ask for; options alone decide where there are options."""

import ast
import warnings
from collections import defaultdict
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("trl")

from cegm.lab import world
from cegm.lab.tasks.axes import AXES, MODULES
from cegm.lab.tasks.axis import ChoiceAxis
from cegm.lab.tasks.items import NotMeasured
from cegm.lab.train.model import byte_tokenizer
from examinees import Guesser
from trials import batches_change_nothing, on_trial

ALONE = {"retention"}
"""Axes that a guesser without a model cannot answer: contexts are read as tokens (`test_retention.py`)."""


@cache
def defined(module):
    """What the statements of a module define -> the statement, and what its imports are called -> module and name."""
    statements, imported = {}, {}
    for node in ast.parse(Path(import_module(module).__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        names = [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        statements |= dict.fromkeys([*names, *([node.name] if hasattr(node, "name") else [])], node)
    return statements, imported


def askable(module, name, seen):
    """First folders in calls of `public` of whatever a definition of `cegm.lab.tasks` may reach."""
    if (module, name) in seen or not module.startswith("cegm.lab.tasks"):
        return set()
    seen.add((module, name))
    statements, imported = defined(module)
    if name in imported:
        return askable(*imported[name], seen)
    folders = set()
    for node in ast.walk(statements[name]) if name in statements else ():
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "public" and node.args[0].id == "source":
            folders.add(node.args[1].value)
        if isinstance(node, ast.Name):
            folders |= askable(module, node.id, seen)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            folders |= askable(".".join(imported[node.value.id]), node.attr, seen)
    return folders


@pytest.mark.parametrize("name", AXES)
def test_sets_are_those_that_the_code_can_ask_for(name):
    assert askable(f"cegm.lab.tasks.{name}", "AXIS", set()) == set(AXES[name].sets)


@pytest.mark.parametrize("name", [name for name, axis in AXES.items() if axis.sets])
def test_whatever_is_asked_for_is_among_them(name, tmp_path):
    guesser = Guesser()
    guesser.tokenizer = byte_tokenizer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(NotMeasured) as raised:
            AXES[name].examine(guesser, str(tmp_path), 4, 0)
    told = " ".join([str(raised.value), *(str(each.message) for each in caught)])
    asked = {part.split("/")[0].split()[0] for part in told.split(f"{tmp_path}/")[1:]}
    assert asked
    assert asked <= set(AXES[name].sets)


CHOICES = [name for name, axis in AXES.items() if isinstance(axis, ChoiceAxis) and name not in ALONE]


@pytest.mark.parametrize("name", CHOICES)
def test_an_oracle_gets_everything_and_a_guesser_chance(name):
    records = on_trial(AXES[name], "world", 150 if name == "reasoning" else 90)
    levels = defaultdict(int)
    for record in records:
        levels[record.subset, record.level] += 1
    assert len(set(levels.values())) == 1, "levels and subsets have as many items each"


@pytest.mark.parametrize("name", CHOICES)
def test_a_reader_of_the_world_knows_every_word_of_the_generated_form(name):
    choices = [item.choice for item in AXES[name].questions("world", 8, 0)]
    texts = [text for choice in choices for text in (choice.context, *choice.options, choice.tail)]
    assert {word for text in texts for word in text.split()} <= {*world.vocabulary()}


@pytest.mark.parametrize("name", CHOICES)
def test_the_batch_size_changes_nothing(name):
    batches_change_nothing(AXES[name], 3)


@pytest.mark.parametrize("name", CHOICES)
def test_a_tie_is_wrong(name):
    class Undecided(Guesser):
        def choose(self, choices):
            return [[-1.0] * len(choice.options) for choice in choices]

    records = AXES[name].examine(Undecided(), "world", 6, 0)
    assert all(record.score == 0 and record.continuous == 0 for record in records)


def test_modules_are_called_as_their_axes_and_these_say_what_they_are():
    assert [axis.name for axis in AXES.values()] == list(MODULES)
    for axis in AXES.values():
        assert all((axis.title, axis.paper, axis.measure, axis.control, axis.no_task))
        assert axis.better == ("lower" if axis.unit == "bits per byte" else "higher")

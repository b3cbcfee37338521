"""The public sets that axes say they read are those that their code can ask for, and those that it does ask for."""

import ast
import warnings
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("trl")

from cegm.tasks.axes import AXES
from cegm.tasks.axis import NotMeasured
from cegm.train.model import byte_tokenizer
from examinees import Guesser

NEVER_ASKED = {"drift": {"legal_cfr_cfpb"}}
"""In a module that an axis uses in part."""


def askable(module, seen):
    """First folders in calls of `public` in a module and all that it imports of `cegm.tasks`."""
    if module in seen or not module.startswith("cegm.tasks."):
        return set()
    seen.add(module)
    try:
        path = Path(import_module(module).__file__)
    except ImportError:  # a name in a module, and no module
        return set()
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "public" and node.args[0].id == "source":
            found.add(node.args[1].value)
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                found |= askable(name, seen)
    return found


@pytest.mark.parametrize("name", AXES)
def test_sets_are_those_that_the_code_can_ask_for(name):
    axis = AXES[name]
    assert askable(axis.measured.__module__, set()) == set(axis.sets) | NEVER_ASKED.get(name, set())


@pytest.mark.parametrize("name", [name for name, axis in AXES.items() if axis.sets])
def test_whatever_is_asked_for_is_among_them(name, tmp_path):
    guesser = Guesser()
    guesser.tokenizer = byte_tokenizer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(NotMeasured) as raised:
            AXES[name].measured(guesser, str(tmp_path), 4, 0)
    told = " ".join([str(raised.value), *(str(each.message) for each in caught)])
    asked = {part.split("/")[0].split()[0] for part in told.split(f"{tmp_path}/")[1:]}
    assert asked
    assert asked <= set(AXES[name].sets)

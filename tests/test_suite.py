"""The suite itself: what it draws, and what it leaves to a machine."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

import conftest
import drawing
from drawing import draws_the_same, examples

short = pytest.mark.skipif(not draws_the_same(), reason="draws anew on purpose")


def drawn(given_settings: settings | None = None) -> list[Any]:
    """What hypothesis draws for a property of texts and numbers."""
    seen = []

    @(given_settings or settings())
    @given(st.text() | st.integers())
    def look(value: Any) -> None:
        seen.append(value)

    look()
    return seen


@short
def test_the_short_suite_draws_the_same_examples_whatever_else_was_imported(tmp_path: Path) -> None:
    first = drawn()
    assert len(first) == 100
    source = tmp_path / "unknown_so_far.py"
    source.write_text("\n".join(f"a{i} = 'word {i}', {1000 + i}, {i}.125" for i in range(300)))
    spec = importlib.util.spec_from_file_location("unknown_so_far", source)
    sys.modules["unknown_so_far"] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        assert drawn() == first
    finally:
        del sys.modules["unknown_so_far"]


def test_examples_need_no_memory_and_no_clock() -> None:
    for each in (settings.default, examples(3)):
        assert each.database is None
        assert each.deadline is None
        assert HealthCheck.too_slow in each.suppress_health_check


def test_what_another_library_sets_for_all_tests_does_not_last() -> None:
    """As torch does on the import of its own tests' tools, which one of ours needs."""
    expected = [repr(settings.default), repr(examples(7))]
    settings.register_profile("of another library", max_examples=10)
    settings.load_profile("of another library")
    assert [repr(settings.default), repr(examples(7))] != expected
    assert repr(examples(7)) == expected[1]
    drawing.as_chosen()  # before every test
    assert [repr(settings.default), repr(examples(7))] == expected


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Configures pytest as with a choice of marks; afterwards all is as before."""
    monkeypatch.delenv("CEGM_TEST_MARGINS", raising=False)
    short, constants = draws_the_same(), providers._get_local_constants
    yield lambda marks: conftest.pytest_configure(configuration(marks))
    drawing.draw("same" if short else "new")
    providers._get_local_constants = constants


def configuration(marks: str) -> Any:
    return SimpleNamespace(option=SimpleNamespace(markexpr=marks))


@pytest.mark.parametrize("marks", ["long", "", "hypothesis"])
def test_any_other_choice_of_tests_draws_more_examples_and_new_ones(chosen: Callable[[str], None], marks: str) -> None:
    chosen("not long")
    assert examples(4).max_examples == 4
    short = drawn()
    chosen(marks)
    assert examples(4).max_examples == 80
    with_few = settings(max_examples=50)
    once, again = drawn(with_few), drawn(with_few)
    assert len({str(each) for each in (short, once, again)}) == 3
    chosen("not long")
    assert drawn() == short


def test_the_long_suite_holds_the_properties_and_the_short_one_too() -> None:
    def plain() -> None:
        pass

    for marks, times in (("long", 1), ("not long", 0)):
        added: list[str] = []
        items = [
            SimpleNamespace(nodeid="", obj=each, add_marker=added.append) for each in (plain, given(st.none())(plain))
        ]
        conftest.pytest_collection_modifyitems(configuration(marks), items)
        assert added[::2] == ["long"] * times


@pytest.mark.parametrize("time", [1, 2])
def test_every_test_starts_from_the_same_random_state(time: int) -> None:
    """Twice, so that the second follows one that has drawn."""
    assert random.random() == random.Random(0).random()
    assert np.random.random() == np.random.RandomState(0).random_sample()
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))


def test_threads_are_those_of_the_environment_here_and_in_every_process() -> None:
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])

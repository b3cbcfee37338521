"""Layers are read when asked for, of few lines, the same ones while a run grows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cegm.lab.watch.follower import Follower
from cegm.lab.watch.layer_lines import MOST_COLUMNS, QUANTITIES, LayerLines, picked
from made_runs import layer_names, lines_of, train_line

NAMES = layer_names(9)


def of(path: Path, steps: int = 40, layers: list[str] = NAMES) -> LayerLines:
    path.write_text("".join(lines_of(steps, steps, 10, layers)), encoding="utf-8")
    return LayerLines(Follower(path))


def test_a_map_has_what_the_lines_say(tmp_path: Path) -> None:
    found = of(tmp_path / "metrics.jsonl")
    table = found.table("cosine")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    said = [line for line in lines if line["kind"] == "train"]
    assert table["layers"] == NAMES
    assert table["steps"] == [10, 20, 30, 40]
    for name, row in zip(NAMES, table["values"], strict=True):
        assert row == pytest.approx([line["layers"][name]["cosine"] for line in said], rel=1e-3)
    assert found.layer(NAMES[3])["values"]["cosine"] == table["values"][3]
    assert found.quantities() == list(QUANTITIES)
    assert dict(found.last()[NAMES[0]]) == said[-1]["layers"][NAMES[0]]


def test_a_run_without_layers_has_no_map(tmp_path: Path) -> None:
    found = of(tmp_path / "metrics.jsonl", layers=[])
    assert (found.quantities(), found.last()) == ([], {})
    assert found.table("cosine") == {"layers": [], "steps": [], "values": []}
    assert LayerLines(Follower(tmp_path / "nothing")).table("cosine")["layers"] == []


def test_a_layer_that_comes_later_and_a_number_that_is_missing_leave_gaps(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = train_line(10, 40, [], layers={"a": {"cosine": 0.5}})
    path.write_text(
        first + train_line(20, 40, [], layers={"a": {"cosine": None}, "b": {"cosine": 0.25}}), encoding="utf-8"
    )
    found = LayerLines(Follower(path))
    assert found.table("cosine") == {"layers": ["a", "b"], "steps": [10, 20], "values": [[0.5, None], [None, 0.25]]}
    assert found.quantities() == ["cosine"]
    assert found.layer("unknown")["values"] == {"cosine": [None, None]}


def test_of_more_lines_those_before_stay_so_that_little_is_read_anew() -> None:
    before: list[int] = []
    for count in range(1, 2000):
        now = picked(list(range(count)), 100)
        assert len(now) <= 101
        assert now[0] == 0
        assert now[-1] == count - 1
        anew = set(now) - set(before)
        assert len(anew) <= 2
        before = now


def test_a_long_run_has_a_map_of_few_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(train_line(step, 1000, NAMES[:1]) for step in range(1, 1001)), encoding="utf-8")
    table = LayerLines(Follower(path)).table("update_to_weight")
    assert MOST_COLUMNS / 2 <= len(table["steps"]) <= MOST_COLUMNS + 1
    assert table["steps"][-1] == 1000


def test_layers_of_lines_that_a_resumption_took_back_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    found = of(path)
    assert found.table("cosine")["steps"] == [10, 20, 30, 40]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + train_line(30, 40, NAMES, seed=9), encoding="utf-8")
    after = found.table("cosine")
    assert after["steps"] == [10, 20, 30]
    assert after["values"] == LayerLines(Follower(path)).table("cosine")["values"]

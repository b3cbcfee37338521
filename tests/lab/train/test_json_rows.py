"""Rows one per line and rows in one list are the same rows; whatever holds rows without being one is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from cegm.lab.train.json_rows import UNREAD, read

ROWS: list[Any] = [{"text": f'row {n}: ü\u2028\\ "quoted" [1, 2]'} for n in range(5)]
TURNS: list[Any] = [
    {"prompt": [{"role": "user", "content": f"{n}?"}], "completion": [{"role": "assistant", "content": "!"}]}
    for n in range(3)
]


def lines(rows: list[Any]) -> str:
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.JSON", "a.JsonL"])
@pytest.mark.parametrize(
    "written",
    [
        lines,
        lambda rows: lines(rows).replace("\n", "\r\n\r\n") + "\r\n",
        json.dumps,
        lambda rows: json.dumps(rows, indent=2),
        lambda rows: "\n\n " + json.dumps(rows, indent="\t", ensure_ascii=False) + "\n",
        lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]",
        lambda rows: "\ufeff" + json.dumps(rows),
    ],
    ids=["lines", "foreign line ends", "list", "pretty list", "tabs", "list of lines", "mark"],
)
@pytest.mark.parametrize("rows", [ROWS, TURNS, ROWS[:1]], ids=["text", "turns", "one"])
def test_all_ways_of_writing_them_are_the_same_rows(tmp_path: Path, name: str, written: Any, rows: list[Any]) -> None:
    (tmp_path / name).write_text(written(rows), encoding="utf-8", newline="")
    kind, documents, left_out = read(tmp_path / name)
    assert documents == ([row["text"] for row in rows] if kind == "text" else rows)
    assert not left_out


def test_one_row_may_be_spread_over_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"messages": [{"role": "user", "content": "hello"}]}, indent=1))
    assert read(tmp_path / "a.json")[0] == "messages"


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ({"data": ROWS}, r"one object with a list under 'data'; save that list"),
        ({"version": 1, "train": ROWS, "test": ROWS}, "list under 'train'"),
        ({"text": ["a", "b"]}, "list under 'text'"),
        ({"0": ROWS[0], "1": ROWS[1]}, "row 1 has no text"),
        ([], "is empty"),
        ([ROWS], "row 1 has no text"),
        ([ROWS[0], {"text": " "}], "row 2 has no text"),
        ([ROWS[0], TURNS[0]], "row 2 holds completion but the first row holds text"),
        ([ROWS[0], None], "row 2 has no text"),
        ("text", "row 1 has no text"),
        (7, "row 1 has no text"),
    ],
)
def test_what_holds_no_rows_is_told(tmp_path: Path, indent: int | None, whole: Any, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole, indent=indent))
    with pytest.raises(ValueError, match=message) as raised:
        read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a"},\n {"text": "b"}', "a.json is not JSON: .* in line 2"),
        ('[\n{"text": "a"}\n{"text": "b"}\n]', "a.json is not JSON: .* in line 3"),
        ('[{"text": "a", "text": "b"}]', "'text' stands twice"),
        ('{\n"text": "a"\n}\n{\n"text": "b"\n}', "row 1 is not JSON.*a line of its own, or one list"),
        ('{"text": "a"}\n{"text": "b"', "row 2 is not JSON.*a line of its own"),
    ],
)
def test_what_is_broken_is_told_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.json")


def test_a_prompt_of_messages_wants_a_completion_of_messages(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "text", "completion": TURNS[0]["completion"]}))
    with pytest.raises(ValueError, match="of the same type"):
        read(tmp_path / "a.jsonl")


def test_fields_that_are_not_read_are_named_once(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}], "tools": [1], "id": n, "system": None} for n in range(3)]
    (tmp_path / "a.jsonl").write_text(lines(rows))
    assert read(tmp_path / "a.jsonl")[2] == {UNREAD: ["tools", "id"]}

"""YAML and JSON with one meaning: what has two, or stands for too much, is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cegm.lab.strict import json_lines, json_object, json_value, parquet_table, read_text, yaml_text, yaml_value
from drawing import examples

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@examples(50)
@given(VALUES)
def test_json_that_was_written_comes_back(value: Any) -> None:
    assert json_value(json.dumps(value), "f") == value


@examples(50)
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES, max_size=4))
def test_yaml_that_was_written_comes_back(value: dict[str, Any]) -> None:
    """Whatever this package writes with PyYAML, aliases of equal parts included."""
    values = {"one": value, "other": value}
    assert yaml_value(yaml_text(values), "f") == values


def test_line_ends_of_unicode_in_a_path_come_back() -> None:
    values = {"data": "a\x85b", "output_dir": "über"}
    assert yaml_value(yaml_text(values), "f") == values
    assert "über" in yaml_text({"output_dir": "über"})


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join(['*' + before] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "a name stands twice"),
        ("a: {b: 1, b: 1}", "a name stands twice"),
        (BOMB, "its aliases stand for more than 200,000 values"),
        (f"a: &a {'x' * 1001}\nb: [{','.join(['*a'] * 1001)}]", "its aliases stand for more than"),
        ("a: &a [*a]", "its aliases stand for more than"),
        (MERGED, "merge keys"),
        ("[" * 5000, "nested too deeply"),
        ("- " * 5000, "nested too deeply"),
        ("? " * 5000, "nested too deeply"),
        ("!!int ''", "is not valid YAML"),
        ("!!timestamp x", "is not valid YAML"),
        ("2020-99-99", "is not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a\0", "is not valid YAML"),
        ("a: [1", "is not valid YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        yaml_value(text, "run.yaml")
    assert str(raised.value).startswith("run.yaml is not valid YAML: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a", "text": "b"}', "'text' stands twice"),
        ('[{"a": {"b": 1, "b": 1}}]', "'b' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "is not JSON"),
        ('{"a": 1', "is not JSON"),
        ("", "is not JSON"),
    ],
)
def test_json_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        json_value(text, "data.jsonl row 3")
    assert str(raised.value).startswith("data.jsonl row 3 is not JSON: ")
    assert "\n" not in str(raised.value)


def test_bytes_that_are_no_text_name_file_and_place(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc\xff")
    with pytest.raises(ValueError, match=r"f is not UTF-8 text \(byte 3\)"):
        read_text(tmp_path / "f")


def test_lines_come_with_their_places_and_blank_ones_count(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n\n{"a": NaN, "b": 2}\n')
    assert json_lines(file, nan_is_null=True) == [(f"{file} line 1", {"a": 1}), (f"{file} line 3", {"a": None, "b": 2})]
    assert json_lines(file, having='"b"', nan_is_null=True) == [(f"{file} line 3", {"a": None, "b": 2})]


def test_a_cut_last_line_is_left_out_of_a_growing_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"a": 1}\n{"a": 2')
    assert [line for _, line in json_lines(file, growing=True)] == [{"a": 1}]
    with pytest.raises(ValueError, match=r"a\.jsonl line 2 is not JSON"):
        json_lines(file)
    file.write_text('{"a": 1}\n{"a": 2}')
    assert [line for _, line in json_lines(file, growing=True)] == [{"a": 1}, {"a": 2}], "nothing was cut off"
    file.write_text('{"a": 1}\n{"a": 2\n')
    with pytest.raises(ValueError, match=r"a\.jsonl line 2 is not JSON"):
        json_lines(file, growing=True)


@pytest.mark.parametrize("text", ["[1]", "3", "null", '"a"'])
def test_what_is_no_object_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json must hold a JSON object"):
        json_object(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"a\.json line 1 must hold a JSON object"):
        json_lines(tmp_path / "a.json")


def test_a_table_comes_back_or_is_refused_in_one_line(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    whole = tmp_path / "whole.parquet"
    table = pandas.DataFrame({"a": range(1000), "b": ["text"] * 1000})
    table.to_parquet(whole)
    pandas.testing.assert_frame_equal(parquet_table(whole), table)
    content, damaged = whole.read_bytes(), tmp_path / "damaged.parquet"
    end = content[:-200] + bytes(200)
    for other in (b"", b"PAR1", content[:-1], content[: len(content) // 2], content[8:], end, b"x" * 100):
        damaged.write_bytes(other)
        with pytest.raises(ValueError, match=r"damaged\.parquet is damaged") as raised:
            parquet_table(damaged)
        assert "\n" not in str(raised.value)
    with pytest.raises(OSError, match="nowhere"):
        parquet_table(tmp_path / "nowhere.parquet")

"""Reads YAML, JSON and tables that people wrote or disks kept: what has two meanings or none is refused, in one line that names the place.

No torch here: the command line needs it before anything heavy.
"""

from __future__ import annotations

import io
import json
from collections.abc import Hashable
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    import pandas as pd

MOST = 200_000
"""Values and letters that a YAML file may hold once its aliases are written out; a few lines of aliases can stand for billions."""

DEEPEST = 100
"""Brackets that may be open at once in YAML; PyYAML looks back over all of them at every letter."""


def read_text(path: Path) -> str:
    """A file as text; ValueError where that is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); restore or convert it") from None


def yaml_value(text: str, place: str) -> Any:
    """The plain values of a YAML document; ValueError, which begins with the place, where it is broken.

    That it is, too, with a name twice, a tag of its own or a merge key, or where it unfolds to more than `MOST`.
    """
    if max(accumulate((letter in "[{") - (letter in "]}") for letter in text), default=0) > DEEPEST:
        raise ValueError(f"{place} is not valid YAML: it is nested too deeply")
    try:
        value = yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise ValueError(f"{place} is not valid YAML: it is nested too deeply") from None
    except Exception as error:  # PyYAML fails with whatever it stumbles over: `!!int ''` is an IndexError
        raise ValueError(f"{place} is not valid YAML: {' '.join(str(error).split())}") from None
    if _unfolded(value) > MOST:
        raise ValueError(f"{place} is not valid YAML: its aliases stand for more than {MOST:,} values; write them out")
    return value


def yaml_text(values: Any) -> str:
    """Plain values as YAML that reads back as the same: letters of all languages as they are, where that is so.

    PyYAML writes the line ends of Unicode (U+0085, U+2028) in a way that it reads back as blanks; with them all is ASCII.
    """
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if any(end in text for end in "\x85\u2028\u2029"):
        return str(yaml.safe_dump(values, sort_keys=False))
    return text


def json_value(text: str, place: str, nan_is_null: bool = False) -> Any:
    """The value of one JSON text; ValueError, which begins with the place, where it is broken, nested too deeply, or has a name twice.

    With `nan_is_null`, NaN and infinities, which JSON has not but Python writes, become None.
    """
    try:
        constants: Any = (lambda _: None) if nan_is_null else None
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=constants)
    except json.JSONDecodeError as error:
        line = f" in line {error.lineno}" if error.lineno > 1 else ""
        raise ValueError(f"{place} is not JSON: {error.msg}{line}") from None
    except RecursionError:
        raise ValueError(f"{place} is not JSON: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{place} is not JSON: {error}") from None


def json_object(path: Path, nan_is_null: bool = False) -> dict[str, Any]:
    """The object that a JSON file holds; ValueError where it is no UTF-8 text, no JSON, or holds something else."""
    return _object(json_value(read_text(path), str(path), nan_is_null), str(path))


def json_lines(
    path: Path, growing: bool = False, having: str = "", nan_is_null: bool = False
) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file that has one on each line, each after the place where it stands; ValueError for a line that is none.

    Of a `growing` file, a last line without its newline that cannot be read was cut off when its writer died, and is left out.
    Lines without what `having` says are not read at all.
    """
    texts = read_text(path).split("\n")
    records = []
    for number, text in enumerate(texts, start=1):
        if not text.strip() or having not in text:
            continue
        place = f"{path} line {number}"
        try:
            records.append((place, _object(json_value(text, place, nan_is_null), place)))
        except ValueError:
            if not (growing and number == len(texts)):
                raise
    return records


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place} must hold a JSON object, got {type(value).__name__}")
    return value


def parquet_table(path: Path) -> pd.DataFrame:
    """The table of a parquet file; ValueError where it is damaged."""
    import pandas as pd

    content = io.BytesIO(path.read_bytes())
    try:
        return pd.read_parquet(content)
    except Exception as error:  # Arrow fails with whatever it stumbles over
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}); delete it and run again") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's, which keeps the last of two equal names and unfolds merge keys, however many."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not read; write the values out")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, f"a name stands twice{node.start_mark}")
        return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands twice")
    return found


def _unfolded(value: Any) -> int:
    """How much there is with all aliases written out, counted up to a little above `MOST`."""
    count, waiting = 0, [value]
    while waiting and count <= MOST:
        one = waiting.pop()
        count += len(one) if isinstance(one, (str, bytes)) else 1
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set)):
            waiting += one
    return count

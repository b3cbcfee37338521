"""How the options of a command are declared, read and checked: a dataclass whose fields carry an `Option`, once for flags, YAML and help.

Nothing heavy is imported to print help.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cegm.lab import strict
from cegm.ranges import Option, check_value

LARGEST = 2**63 - 1
"""Of a whole number: torch counts in 64 bits."""

LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger one."""

TEXT_IS_UTF8 = ("model_name_or_path", "output_dir")
"""Options whose folders are opened by code that takes every name for UTF-8."""


def option(default: Any, meaning: str, **bounds: Any) -> Any:
    """A field of a dataclass that is an option of a command, with `low`, `high`, `above`, `below`, `hint` of `Option` as bounds."""
    return field(default=default, metadata={"option": Option(default, meaning, **bounds)})


@functools.cache
def declared(kind: Any) -> Mapping[str, Option]:
    """The options of a dataclass by name, with the types of their fields."""
    hints = typing.get_type_hints(kind)
    fields = [each for each in dataclasses.fields(kind) if each.metadata]
    return {each.name: dataclasses.replace(each.metadata["option"], kind=hints[each.name]) for each in fields}


@dataclass
class Declared:
    """Base of dataclasses of options: whatever their values come from, they are inside their ranges.

    Raises:
        ValueError: A value that is not, in one line that names it.
    """

    def __post_init__(self) -> None:
        for name, each in declared(type(self)).items():  # type: ignore[arg-type]  # mypy takes a class for unhashable
            value = getattr(self, name)
            check_value(name, value, each)
            if name in TEXT_IS_UTF8 and os.fsencode(value) != value.encode("utf-8", "replace"):
                raise ValueError(
                    f"{name}={value!r} is not UTF-8, as tokenizers and weights need it; "
                    "give another name, or set a UTF-8 locale such as LC_ALL=C.UTF-8"
                )


WORDS = {"yes": "true", "no": "false"}


def convert(name: str, value: Any, each: Option) -> Any:
    """A value, text of a flag or what YAML holds, as the type of an option; ValueError where it cannot be one."""
    import msgspec  # which takes as long to import as all that help needs

    kind, given = each.plain, value
    is_pair = typing.get_origin(kind) is tuple
    if isinstance(value, str):
        word = value.strip().lower()
        if each.is_optional and word in ("none", "null"):
            return None
        if is_pair:
            value = [_number(part) for part in word.split(",")]
        elif kind is not str:
            value = WORDS.get(word, word) if kind is bool else _number(word)
    elif kind is str and isinstance(value, list):
        value = ",".join(convert(name, part, each) for part in value)
    elif kind is str and not isinstance(value, bool | dict | None):
        value = str(value)
    whole = Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
    finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
    wanted = {int: whole, float: finite}.get(kind, kind)
    try:
        return msgspec.convert(value, wanted | None if each.is_optional else wanted, strict=False)
    except (msgspec.ValidationError, UnicodeEncodeError):
        expected = "two numbers, such as 0.9,0.95" if is_pair else kind.__name__
        raise ValueError(f"{name}={given!r} is not of type {expected}") from None


def _number(text: str) -> Any:
    """Python's numbers, of which JSON, and so msgspec, has not all (`.1`), a whole one exactly; other text as it is."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def read_yaml(path: str) -> dict[str, Any]:
    """Names and values of a YAML file; ValueError where it is missing, broken, or holds no mapping."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"config file {path} does not exist")
    values = strict.yaml_value(strict.read_text(file), path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold 'name: value' lines, such as 'learning_rate: 0.003'")
    return values


def split(kind: type[Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values that are options of a dataclass, as their types, and the others."""
    own = declared(kind)  # type: ignore[arg-type]
    mine = {name: convert(name, value, own[name]) for name, value in values.items() if name in own}
    return mine, {name: value for name, value in values.items() if name not in own}

"""One option: its default, its meaning, the range of its values, and what is said of a value outside. No torch here."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from cegm.spelling import nearest


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        default: What won the comparison; the preset `recommended`.
        meaning: In one line.
        low: Smallest value; `above` leaves it out.
        high: Largest value; `below` leaves it out.
        presets: What other presets make of it, where they differ.
        hint: Remedy for a number outside the range that somebody may mean otherwise.
        kind: Type of its values, from the annotation.
    """

    default: Any
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    presets: Mapping[str, Any] = field(default_factory=dict)
    hint: str = ""
    kind: Any = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it may be, if it is a word."""
        return get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()

    @property
    def plain(self) -> Any:
        """Type of its values without None and with words as `str`, as a command line reads them."""
        if self.choices:
            return str
        if isinstance(self.kind, types.UnionType):
            return next(part for part in get_args(self.kind) if part is not type(None))
        return self.kind

    @property
    def is_optional(self) -> bool:
        """Whether it may be None."""
        return type(None) in get_args(self.kind)

    @property
    def help(self) -> str:
        """What a command line says of it."""
        return f"{self.meaning}: {', '.join(self.choices)}" if self.choices else self.meaning

    @property
    def range(self) -> str:
        """The values it may have, in words."""
        if self.choices:
            return ", ".join(self.choices)
        if self.low == -math.inf:
            return ""
        if self.high == math.inf:
            return f"> {self.low:g}" if self.above else f">= {self.low:g}"
        return f"{'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"


def check_value(name: str, value: Any, option: Option) -> None:
    """Raises ValueError, in one line, for a value outside the choices or the range of an option; None is inside of each."""
    if option.choices:
        if value not in option.choices:
            raise ValueError(f"{name}={value!r} does not exist; {nearest(value, option.choices)}")
    elif value is None or option.plain in (bool, str):
        return
    elif option.plain in (int, float):
        if option.plain is int and not isinstance(value, int):
            raise ValueError(f"{name}={value} must be a whole number")
        _check_number(name, value, option)
    else:
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ValueError(f"{name}={value!r} must be two numbers, such as {option.default}")
        for place, number in zip(("first", "second"), value, strict=True):
            _check_number(f"{name}={value}: the {place}", number, option)


def _check_number(what: str, value: Any, option: Option) -> None:
    """Of one number, which may be a tensor of one."""
    inside = option.low <= value <= option.high and abs(value) < math.inf
    if inside and not (option.above and value == option.low) and not (option.below and value == option.high):
        return
    if option.high == math.inf > abs(option.low):
        where = f"must be {'above' if option.above else 'at least'} {option.low:g}"
    else:
        where = f"is outside {option.range or 'the finite numbers'}"
    raise ValueError(f"{what}={value} {where}{f'; {option.hint}' if option.hint else ''}")

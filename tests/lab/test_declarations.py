"""Options of commands: one declaration gives conversion, range and help, whatever a value comes from."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from cegm.lab.commands import CONFIGURED
from cegm.lab.declarations import LARGEST, Declared, convert, declared, option, split
from cegm.ranges import check_value


@dataclass
class Oven(Declared):
    """Of every type that an option has."""

    heat: float = option(180.0, "degrees", low=0, above=True)
    trays: int = option(2, "trays", low=1, high=4)
    fan: bool = option(False, "moves the air")
    mode: Literal["bake", "grill"] = option("bake", "what it does")
    timer: int | None = option(None, "minutes", low=1)
    dish: str = option("", "what is in it")
    shelf: tuple[float, float] = option((0.1, 0.2), "from, to", low=0, high=1)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("heat", "2e2", 200.0), ("heat", 200, 200.0), ("heat", " 1e-3 ", 0.001), ("heat", ".1", 0.1), ("heat", "+1.", 1.0),
        ("trays", "3e0", 3), ("trays", 3.0, 3), ("trays", str(LARGEST), LARGEST),
        ("fan", "yes", True), ("fan", "No", False), ("fan", "TRUE", True), ("fan", "0", False), ("fan", False, False),
        ("timer", "none", None), ("timer", "Null", None), ("timer", None, None), ("timer", "5", 5),
        ("dish", 3, "3"), ("dish", ["a", 2], "a,2"), ("dish", "none", "none"), ("dish", " a ", " a "),
        ("shelf", "0.9, .95", (0.9, 0.95)), ("shelf", [0.9, "0.95"], (0.9, 0.95)),
    ],
)  # fmt: skip
def test_text_and_typed_values_become_the_type_of_the_option(name: str, value: Any, expected: Any) -> None:
    found = convert(name, value, declared(Oven)[name])
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("heat", "hot", "float"), ("heat", True, "float"), ("heat", "nan", "float"), ("heat", "1e400", "float"), ("heat", None, "float"),
        ("trays", 2.5, "int"), ("trays", LARGEST + 1, "int"), ("trays", "9" * 400, "int"), ("trays", [2], "int"),
        ("fan", "perhaps", "bool"), ("fan", 2, "bool"), ("timer", "soon", "int"), ("heat", "1\udcff", "float"),
        ("dish", None, "str"), ("dish", {"a": 1}, "str"), ("dish", [["a"], {}], "str"),
        ("shelf", "0.9", "two numbers"), ("shelf", 0.9, "two numbers"),
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_refused_with_name_and_value(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=.* is not of type {expected}") as raised:
        convert(name, value, declared(Oven)[name])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heat": 0.0}, "heat=0.0 must be above 0"),
        ({"heat": float("inf")}, "heat=inf must be above 0"),
        ({"trays": 0}, "trays=0 is outside [1, 4]"),
        ({"timer": 0}, "timer=0 must be at least 1"),
        ({"mode": "gril"}, "mode='gril' does not exist; did you mean 'grill'?"),
        ({"shelf": (0.1, 2.0)}, "the second=2.0 is outside [0, 1]"),
    ],
)
def test_what_is_outside_its_range_is_refused_wherever_it_comes_from(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        Oven(**values)
    assert message in str(raised.value)


def test_values_are_told_apart_from_those_of_others() -> None:
    assert split(Oven, {"trays": "3", "seed": "7"}) == ({"trays": 3}, {"seed": "7"})


@pytest.mark.parametrize("command", CONFIGURED)
def test_every_option_of_every_command_is_explained_and_its_default_is_allowed(command: str) -> None:
    for name, each in declared(pkgutil.resolve_name(CONFIGURED[command][0])).items():
        assert each.meaning
        check_value(name, each.default if each.default is not None or not each.choices else each.choices[0], each)

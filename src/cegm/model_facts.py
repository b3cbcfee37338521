"""Numbers that a model says about itself: attributes of its modules, of their configurations and hyperparameters."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast

from torch import nn

CONFIGURATIONS = ("config", "cfg", "hparams", "args")
"""What a module calls its configuration: an object or a mapping."""

PROPERTIES = ("num_labels", "vocab_size", "num_classes")
"""Counts that may be properties, which the attributes of an object do not show."""


def configurations(module: nn.Module) -> Iterator[Any]:
    """The configurations of one module."""
    for name in CONFIGURATIONS:
        found = vars(module).get(name)
        if found is None and name == "hparams":  # a property of Lightning's modules
            found = getattr(module, name, None)
        if found is not None and not isinstance(found, (nn.Module, str, int, float)):
            yield found


def fact(source: Any, name: str) -> Any:
    """What an object or a mapping has under a name; None if nothing."""
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


def number(source: Any, names: Sequence[str]) -> int | None:
    """The first of these that is a whole number above 0."""
    values = (fact(source, name) for name in names)
    return next((value for value in values if _counts(value)), None)


def numbers(source: Any) -> Iterator[tuple[str, int]]:
    """Every whole number above 0, with its name."""
    if isinstance(source, Mapping):
        items = dict(source)
    else:
        items = _of_class(cast(Hashable, type(source))) | getattr(source, "__dict__", {})
        items |= {name: getattr(source, name, None) for name in PROPERTIES}
    yield from ((str(name), value) for name, value in items.items() if _counts(value))


@cache
def _of_class(kind: Hashable) -> dict[str, int]:
    kinds = [each for each in reversed(cast(type, kind).__mro__) if each not in (object, nn.Module)]
    return {name: value for each in kinds for name, value in vars(each).items() if _counts(value)}


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

"""What hypothesis draws: a few examples, always the same ones, in the short suite; many new ones under `-m long`."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

FEW, MANY = 100, 2000
"""Examples of a property that asks for no number of its own."""

ANYWHERE: Any = {"database": None, "deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
"""Nothing hangs on how fast a machine is, or on what an earlier run has left."""

settings.register_profile("same", max_examples=FEW, derandomize=True, **ANYWHERE)
settings.register_profile("new", max_examples=MANY, print_blob=True, **ANYWHERE)


def draw_the_same() -> None:
    """The same examples in every run.

    Hypothesis mixes in the constants of the package's source, of whichever modules were imported before: the examples would
    hang on which tests are chosen, and on code that the property does not touch.
    """
    settings.load_profile("same")
    providers._get_local_constants = lambda: providers.Constants()


def draw_anew() -> None:
    """New examples, and many; one that fails is printed with what draws it again."""
    settings.load_profile("new")


def examples(few: int, **given: Any) -> settings:
    """Settings of a slow property: `few` examples in the short suite, as many times more in the long one as others have."""
    return settings(max_examples=few * settings.default.max_examples // FEW, **given)

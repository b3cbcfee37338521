"""What hypothesis draws: a few examples, always the same ones, in the short suite; many new ones under `-m long`."""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

FEW, MANY = 100, 2000
"""Examples of a property that asks for no number of its own."""

ANYWHERE: Any = {"database": None, "deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
"""Nothing hangs on how fast a machine is, or on what an earlier run has left."""

settings.register_profile("same", max_examples=FEW, derandomize=True, **ANYWHERE)
settings.register_profile("new", max_examples=MANY, derandomize=False, print_blob=True, **ANYWHERE)  # on servers, too

_chosen = "same"


def draw(examples: Literal["same", "new"]) -> None:
    """The same few examples as in every run, or many new ones; one of these that fails is printed with what draws it again."""
    global _chosen
    _chosen = examples
    as_chosen()
    if examples == "same":
        # Hypothesis mixes in the constants of whichever modules of the package were imported before: its examples would hang
        # on which tests are chosen, and on code that the property does not touch.
        providers._get_local_constants = lambda: providers.Constants()


def as_chosen() -> None:
    """Settings as they were chosen; torch's own tests load others, for the whole process, when they are imported."""
    settings.load_profile(_chosen)


def examples(few: int, **given: Any) -> settings:
    """Settings of a slow property: `few` examples in the short suite, as many times more in the long one as others have."""
    profile = settings.get_profile(_chosen)
    return settings(profile, max_examples=few * profile.max_examples // FEW, **given)


def draws_the_same() -> bool:
    return _chosen == "same"

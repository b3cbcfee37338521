"""What is watched of every request, what a change of it means, and what is to be done; docs/runbook.md says more under the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from cegm.lab.records import Request


class Indicator(NamedTuple):
    """One number of a request.

    Attributes:
        name: Also of its paragraph in the runbook.
        value: Of a request; None where it has none.
        watched: For a limit that is not to be passed, a rise of something rare, or any shift.
        unit: Of its numbers.
        meaning: What an alarm says has happened.
        remedy: What whoever reads it does first.
    """

    name: str
    value: Callable[[Request], float | None]
    watched: Literal["limit", "rise", "shift"]
    unit: str
    meaning: str
    remedy: str

    @property
    def is_hard(self) -> bool:
        """Whether an alarm returns the traffic: without labels, only for what is wrong whatever the answers say."""
        return self.watched == "limit"


def _if_answered(value: Callable[[Request], float]) -> Callable[[Request], float | None]:
    return lambda request: value(request) if not request.error and request.status < 400 else None


LABEL = "label fifty answers"

INDICATORS = (
    Indicator(
        "errors", lambda request: float(bool(request.error)), "limit", "share",
        "requests fail more often than is allowed", "look at the server and its log",
    ),
    Indicator(
        "slow", _if_answered(lambda request: request.seconds), "limit", "s",
        "answers take longer than the slowest twentieth of the reference more often than is allowed",
        "look at load and length of answers",
    ),
    Indicator(
        "refusals", _if_answered(lambda request: float(request.refused)), "rise", "share",
        "the model refuses more often", LABEL,
    ),
    Indicator(
        "length", _if_answered(lambda request: float(request.characters)), "shift", "characters",
        "answers have another length", LABEL,
    ),
    Indicator(
        "margin", lambda request: request.margin, "shift", "",
        "the search behind the prompts finds its passages by another margin", "check the index, then " + LABEL,
    ),
    Indicator(
        "disagreement", lambda request: request.disagrees, "shift", "share of words",
        "champion and challenger agree less, or more, than they did", LABEL,
    ),
    Indicator(
        "feedback", lambda request: request.feedback, "shift", "",
        "users judge answers otherwise", LABEL,
    ),
    Indicator(
        "prompts", lambda request: request.prompt_bits_per_byte, "shift", "bits per byte",
        "people ask something else: the base model finds prompts more, or less, surprising",
        LABEL + ", and adapt to the new texts if answers are worse",
    ),
)  # fmt: skip

VARIANTS = ("champion", "challenger")

STREAMS = tuple((variant, indicator) for variant in VARIANTS for indicator in INDICATORS)
"""Each has a detector of its own, and so a share in the promise, whether or not it ever has numbers."""

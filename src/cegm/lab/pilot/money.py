"""What turns an effect into money. Nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Money:
    """What turns an effect into money, all in one currency.

    Attributes:
        value: Of a right answer in place of a wrong one, above 0.
        requests: Over the whole horizon.
        per_request: What a request costs more than it does today.
        once: What is paid once, computing included.
    """

    value: float
    requests: float
    per_request: float = 0.0
    once: float = 0.0

    def net(self, effect: float) -> float:
        """What an effect earns over all requests, costs paid."""
        return self.requests * (self.value * effect - self.per_request) - self.once

    def break_even_requests(self, effect: float) -> float | None:
        """Requests after which an effect has earned what was paid once; None where no request earns anything."""
        gain = self.value * effect - self.per_request
        return max(self.once, 0.0) / gain if gain > 0 else None

    @property
    def break_even_effect(self) -> float:
        """The effect that earns exactly what it costs."""
        return (self.per_request + self.once / self.requests) / self.value

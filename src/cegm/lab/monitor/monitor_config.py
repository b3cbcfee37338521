"""`MonitorConfig`: how a roll-out is watched. No heavy import here: the command line reads this file to print its help."""

from __future__ import annotations

from dataclasses import dataclass

from cegm.lab.declarations import Declared, option

FIXED = ("reference", "promise", "allowed_errors", "allowed_slow")
"""What is fixed together with the reference, and told by the chain from then on."""


@dataclass
class MonitorConfig(Declared):
    """One watch over a roll-out. Every field is a flag of `cegm monitor`.

    Raises:
        ValueError: In one line, for a value outside its range.
    """

    rollout: str = option("", "folder of the roll-out")
    reference: int = option(1_000, "quiet requests of the champion that all later ones are held against", low=100)
    promise: float = option(10_000.0, "mean number of requests between false alarms, at least", low=100)
    allowed_errors: float = option(0.01, "share of requests that may fail", low=0, high=0.5, above=True)
    allowed_slow: float = option(
        0.10, "share of answers that may take longer than 95 % of the reference did", low=0.05, high=0.5, above=True
    )
    base_model: str = option(
        "", "model that says how surprising prompts are, where the roll-out keeps texts (default: nobody reads them)"
    )
    once: bool = option(False, "judge what is there and end: exit code 1 after an alarm")
    renew: bool = option(False, "take the champion's latest requests as the reference from now on")

    def __post_init__(self) -> None:
        if not self.rollout:
            raise ValueError("which roll-out? give its folder: cegm monitor runs/rollout")
        super().__post_init__()

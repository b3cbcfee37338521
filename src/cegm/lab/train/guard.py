"""What is decided before every update: go on, give the step up, or stop the run; and which steps are spikes.

The decision rests on two numbers that all processes have alike, the loss and the gradient norm of the whole step, so all
of them decide the same.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field

from cegm.lab.records import GuardState
from cegm.lab.train.run_config import OnNonFinite

SKIPS_IN_A_ROW = 3
SKIPPED_SHARE = 0.01
"""A run may give up three steps in a row, and three and a hundredth of its steps in all; more is no accident."""

WINDOW, FEWEST = 128, 20
SPIKE = 7.0
"""A step is a spike from this score on; seven deviations, as in the spike score of OLMo 2 (arXiv 2501.00656)."""

FLAT = 1e-3
"""Deviations smaller than this part of the median count as this large, so that a flat past makes no spikes."""


class SpikeScore:
    """How far a number lies above its own recent past, in robust standard deviations.

    Median and median absolute deviation (times 1.4826, which makes it the standard deviation of a normal distribution)
    of the last `WINDOW` numbers; unlike mean and deviation they hardly move with a spike among them.
    """

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=WINDOW)

    def add(self, value: float) -> float:
        """The score of a finite number, which then belongs to the past; NaN while that is shorter than `FEWEST`."""
        score = math.nan
        if len(self.recent) >= FEWEST:
            median = statistics.median(self.recent)
            deviation = 1.4826 * statistics.median(abs(each - median) for each in self.recent)
            score = (value - median) / max(deviation, FLAT * abs(median), FLAT)
        self.recent.append(value)
        return score


@dataclass
class Guard:
    """Looks at loss and gradient norm of every step.

    Attributes:
        on_nonfinite: `stop`, or `skip` within the bounds above.
        skipped: Steps given up so far.
        in_a_row: How many of them since the last update.
        spikes: Steps so far whose loss or gradient norm was a spike.
        score: The larger of the two scores of this step; NaN if there is none.
    """

    on_nonfinite: OnNonFinite = "stop"
    skipped: int = 0
    in_a_row: int = 0
    spikes: int = 0
    score: float = math.nan
    _loss: SpikeScore = field(default_factory=SpikeScore)
    _gradient: SpikeScore = field(default_factory=SpikeScore)
    _was_spike: bool = False

    def watch(self, loss: float, gradient_norm: float) -> bool:
        """Takes the numbers of a step that is finite; tells whether a spike begins here, whose later steps are counted but not told again."""
        self.in_a_row = 0
        # Norms vary by factors, so their logarithm is scored; a norm of zero is none.
        logarithm = math.log(max(gradient_norm, 1e-300))
        scores = [self._loss.add(loss), self._gradient.add(logarithm)]
        self.score = max((score for score in scores if not math.isnan(score)), default=math.nan)
        is_spike = self.score >= SPIKE
        self.spikes += is_spike
        begins = is_spike and not self._was_spike
        self._was_spike = is_spike
        return begins

    def skip(self, step: int) -> bool:
        """Whether `step`, which is not finite, is given up and the run goes on; if so it is counted."""
        self.score = math.nan
        spent = self.in_a_row >= SKIPS_IN_A_ROW or self.skipped >= SKIPS_IN_A_ROW + SKIPPED_SHARE * step
        if self.on_nonfinite == "stop" or spent:
            return False
        self.skipped += 1
        self.in_a_row += 1
        return True

    def state(self) -> GuardState:
        """What a resumed run goes on from."""
        past = list(self._loss.recent), list(self._gradient.recent)
        return GuardState(self.skipped, self.in_a_row, self.spikes, self._was_spike, *past)

    def restore(self, state: GuardState) -> None:
        """Goes on from what `state` returned."""
        self.skipped, self.in_a_row, self.spikes = state.skipped, state.in_a_row, state.spikes
        self._was_spike = state.was_spike
        self._loss.recent.extend(state.losses)
        self._gradient.recent.extend(state.gradients)

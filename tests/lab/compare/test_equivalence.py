"""Equivalence against R's figures, its own interval, and by simulation at the margin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cegm.lab.compare import equivalence

FIRST = (
    *(2.84, 2.51, 2.41, 2.95, 3.14, 3.79, 4.14, 3.85, 3.02, 3.45, 5.37, 3.81, 4.19, 3.16, 3.84),
    *(4.00, 3.26, 4.14, 3.42, 3.25, 4.34, 4.97, 4.31, 3.11, 3.41, 5.02, 4.21, 4.59, 5.30, 4.32),
)
SECOND = (
    *(2.60, 2.82, 2.18, 3.46, 4.01, 3.04, 3.47, 4.06, 2.91, 3.59, 4.51, 3.16, 3.86, 3.31, 3.02),
    *(3.76, 3.66, 3.65, 3.60, 3.48, 2.87, 3.24, 3.92, 3.99, 4.21, 4.21, 3.31, 3.61, 2.97, 2.73),
)


@pytest.mark.parametrize(
    ("part", "p", "low", "high", "equivalent"),
    [
        (slice(0, 15), 0.003166881489265, -0.074433662051646, 0.403766995384980, True),
        (slice(15, 30), 0.441203404601759, 0.126165330509902, 0.999168002823431, False),
    ],
)
def test_the_clinical_example_as_r_computes_it(
    part: slice, p: float, low: float, high: float, equivalent: bool
) -> None:
    """Two endpoints of `clinical` (R package ETC), margin .6: `equivalence::tost`, as kept in statsmodels' own tests."""
    result = equivalence.equivalence(FIRST[part], SECOND[part], 0.6)
    assert (result.p, result.low, result.high) == pytest.approx((p, low, high), abs=1e-12)
    assert result.equivalent is equivalent


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=12), st.integers(1, 40))
def test_equivalent_means_that_the_90_percent_interval_lies_within_the_margin(values: list[int], margin: int) -> None:
    result = equivalence.equivalence([float(value) for value in values], [0.0] * len(values), margin + 0.5)
    assert result.low is not None
    assert result.high is not None
    assert result.equivalent == (-margin - 0.5 < result.low and result.high < margin + 0.5)


def test_equal_runs_are_equivalent_and_a_single_seed_shows_nothing() -> None:
    assert equivalence.no_loss([2.0, 2.25], [2.0, 2.25]).equivalent
    assert not equivalence.equivalence([2.0, 3.0], [1.0, 2.0], 1.0).equivalent
    single = equivalence.no_loss([2.0], [2.0])
    assert (single.p, single.low, single.equivalent) == (None, None, False)


def test_no_loss_takes_the_declared_margin() -> None:
    second = np.linspace(2.0, 2.1, 12)
    spread = np.tile([-0.002, 0.002], 6)
    assert equivalence.no_loss((second + 0.005 + spread).tolist(), second.tolist()).equivalent
    apart = equivalence.no_loss((second + 0.011 + spread).tolist(), second.tolist())
    assert (apart.equivalent, apart.margin) == (False, equivalence.LOSS_MARGIN)


def test_a_margin_is_a_positive_number() -> None:
    with pytest.raises(ValueError, match="above zero"):
        equivalence.equivalence([1.0, 2.0], [1.0, 2.0], 0.0)


def test_at_the_margin_itself_equivalence_is_claimed_in_5_percent() -> None:
    draws = np.random.default_rng(0).normal(1.0, 0.4, size=(1000, 8))
    claimed = [equivalence.equivalence(values.tolist(), [0.0] * 8, 1.0).equivalent for values in draws]
    assert np.mean(claimed) == pytest.approx(0.05, abs=0.014)

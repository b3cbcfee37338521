import math

import pytest

from cegm.mapping.coefficient import PATIENCE, adjust, agreement, cosine, plateau, progress, smooth


def test_progress_has_the_sign_of_falling_and_is_bounded():
    assert progress(fast=1.0, slow=2.0) == pytest.approx(0.5)
    assert progress(fast=2.0, slow=1.0) == -1.0
    assert progress(fast=1.0, slow=1.0) == 0.0
    assert progress(fast=-1.0, slow=0.0) == 0.0
    assert progress(fast=-3.0, slow=-2.0) == pytest.approx(0.5)


def test_smoothing_starts_at_the_first_value_and_forgets():
    mean = smooth(None, 4.0, 0.1)
    assert mean == 4.0
    assert smooth(mean, 2.0, 0.1) == pytest.approx(3.8)


def test_adjustment_is_clipped_and_ignores_what_is_not_finite():
    assert adjust(0.05, 0.01, 1.0, 0.02, 0.2) == pytest.approx(0.06)
    assert adjust(0.195, 0.01, 1.0, 0.02, 0.2) == 0.2
    assert adjust(0.021, 0.01, -1.0, 0.02, 0.2) == 0.02
    assert adjust(0.05, 0.01, math.nan, 0.02, 0.2) == 0.05


def test_plateau_signals_once_per_patience_and_starts_over_on_progress():
    best, waited, signals = None, 0, []
    for step in range(3 * PATIENCE):
        loss = 1.0 if step != PATIENCE + 5 else 0.5
        signal, best, waited = plateau(loss, best, waited)
        signals.append(signal)
    assert [step for step, signal in enumerate(signals) if signal] == [PATIENCE, 2 * PATIENCE + 5]
    assert set(signals) == {0.0, -1.0}


def test_cosine_goes_from_the_upper_bound_to_the_lower_and_stays():
    assert cosine(0, 100, 0.02, 0.2) == pytest.approx(0.2)
    assert cosine(50, 100, 0.02, 0.2) == pytest.approx(0.11)
    assert cosine(100, 100, 0.02, 0.2) == cosine(1000, 100, 0.02, 0.2) == pytest.approx(0.02)


def test_agreement_is_a_sign():
    assert [agreement(x) for x in (3e-30, -2.0, 0.0, math.nan, math.inf)] == [1.0, -1.0, 0.0, 0.0, 0.0]

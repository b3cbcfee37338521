"""What loss explains is told apart from what it does not."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

MODULE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "beyond_loss.py"))


def runs(gain, noise=0.0):
    """Twelve seeds: accuracy is 1 - loss for muon; cegm has .1 less loss, and `gain` more than the line says."""
    rng = np.random.default_rng(1)
    loss = np.linspace(0.3, 0.5, 12)
    score = 1 - loss + noise * rng.normal(size=12)
    sides = {"muon": (loss, score), "cegm": (loss - 0.1, score + 0.1 + gain)}
    return pd.concat(
        pd.DataFrame({"method": m, "seed": range(12), "bits_per_byte": own, "noise": s})
        for m, (own, s) in sides.items()
    )


@pytest.mark.parametrize("gain", [0.0, 0.05, -0.2])
def test_the_rest_is_what_the_line_does_not_say(gain):
    row = MODULE["beyond"](runs(gain), "cegm", "muon", "noise", np.random.default_rng(0))
    assert row["rest"] == pytest.approx(gain, abs=1e-12)
    assert row["explained_by_loss"] == pytest.approx(0.1)
    assert row["difference"] == pytest.approx(0.1 + gain)
    assert row["correlation_with_loss"] == pytest.approx(-1.0)
    assert row["low"] == pytest.approx(gain, abs=1e-9) == row["high"]


def test_the_slope_is_that_of_scipy():
    from scipy import stats

    frame = runs(0.05, noise=0.02)
    muon, cegm = (frame[frame["method"] == method] for method in ("muon", "cegm"))
    line = stats.linregress(muon["bits_per_byte"], muon["noise"])
    expected = (cegm["noise"] - line.intercept - line.slope * cegm["bits_per_byte"]).mean()
    row = MODULE["beyond"](frame, "cegm", "muon", "noise", np.random.default_rng(0))
    assert row["rest"] == pytest.approx(expected)
    assert row["low"] < expected < row["high"]


def test_equal_losses_explain_nothing():
    assert MODULE["rest"](
        np.ones(3), np.array([1.0, 2.0, 3.0]), np.ones(3), np.array([2.0, 3.0, 4.0])
    ) == pytest.approx(1.0)

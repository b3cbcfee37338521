"""The drill of one bad step: its arithmetic, and that a disturbed copy differs by the bad step alone."""

import argparse

import numpy as np
import pytest
import torch

import spike_drill

SMALL = argparse.Namespace(hidden=16, layers=1, warmup=2, rows=2, length=12, at=2, after=6)


def test_recovery_counts_steps_until_the_mean_stays_low():
    assert spike_drill.recovery([0.0] * 20) == 0
    assert spike_drill.recovery([0.5, 0.2] + [0.0] * 18) == 2  # the mean of steps 3 to 7 is the first low one
    assert spike_drill.recovery([1.0] + [0.0] * 9 + [1.0] + [0.0] * 9) == 11  # it has to stay low
    assert spike_drill.recovery([0.0] * 19 + [1.0]) is None
    assert spike_drill.recovery([float("nan")] * 20) is None


@pytest.mark.parametrize("method", ["adamw", "muon", "cegm"])
@pytest.mark.parametrize("clip", spike_drill.CLIPS)
def test_without_a_spike_the_excess_is_zero(method, clip, monkeypatch):
    monkeypatch.setattr(spike_drill, "STRENGTH", 1.0)
    torch.manual_seed(0)
    run = spike_drill.Run(method, {"lr": 0.01}, clip, SMALL)
    batches = [torch.randint(0, 256, (2, 12)) for _ in range(6)]
    for batch in batches[:2]:
        run.train(batch)
    found = spike_drill.excesses(run, batches[1:], torch.Generator().manual_seed(0))
    assert found["gradient"] == [0.0] * 4
    assert any(abs(each) > 1e-4 for each in found["data"])


def test_clipping_before_a_normalised_first_step_hides_the_strength_of_its_gradient():
    """The very first step of Muon is the same whatever its gradient is multiplied by."""
    losses = []
    for strength in (1.0, 1000.0):
        torch.manual_seed(0)
        run = spike_drill.Run("muon", {"lr": 0.01}, 1.0, SMALL)
        batch = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(0))
        run.train(batch, strength)
        losses.append(run.train(batch))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_table_has_a_row_per_method_clipping_and_spike():
    lines = spike_drill.drill(SMALL, {"adamw": {"lr": 0.01}}, 0, np.arange(500, dtype=np.uint8))
    assert len(lines) == 4
    assert all(len(line["excess"]) == SMALL.after for line in lines)
    text = spike_drill.table(lines)
    assert text.count("\n") == 5
    assert "| gradient | norm 1 | adamw |" in text

"""What a run counts: rows however they are batched, clocks that skip the warm-up, and memory that does not grow."""

import hashlib

import pytest
import torch

from cegm.lab.train import meter
from cegm.lab.train.meter import KEPT_TIMES, WARM_UP_STEPS, Meter, peak_resident_bytes, tensor_bytes


@pytest.fixture
def ticking(monkeypatch):
    """A meter whose clock stands where the test puts it."""
    clock = [0.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: clock[0])
    return Meter(torch.device("cpu")), clock


def take_steps(made, clock, seconds):
    for each in seconds:
        made.start_step()
        clock[0] += each / 2
        made.end_forward_backward()
        clock[0] += each / 2
        made.end_step()


def test_the_hash_and_the_tokens_are_of_rows_without_padding_however_they_are_batched():
    rows, mask = torch.arange(24).reshape(4, 6), torch.ones(4, 6, dtype=torch.int64)
    mask[1, 4:] = 0
    mask[3, :2] = 0
    whole, parts = Meter(torch.device("cpu")), Meter(torch.device("cpu"))
    assert whole.add_batch(rows, mask) == 20
    assert sum(parts.add_batch(rows[i : i + 1], mask[i : i + 1]) for i in range(4)) == 20
    expected = b""
    for row, kept in zip(rows.tolist(), mask.tolist(), strict=True):
        ids = torch.tensor([token for token, one in zip(row, kept, strict=True) if one])
        expected = hashlib.sha256(expected + ids.numpy().tobytes()).digest()
    assert whole.batch_hash == parts.batch_hash == expected.hex()


def test_other_rows_or_another_order_have_another_hash():
    rows = torch.arange(12).reshape(2, 6)
    hashes = set()
    for given in (rows, rows.flip(0), rows + 1):
        made = Meter(torch.device("cpu"))
        made.add_batch(given, None)
        hashes.add(made.batch_hash)
    assert len(hashes) == 3


def test_times_are_added_up_and_the_median_leaves_out_the_warm_up(ticking):
    made, clock = ticking
    assert made.median_step_seconds() != made.median_step_seconds()  # NaN
    take_steps(made, clock, [8.0])
    assert made.median_step_seconds() == 8.0
    clock[0] += 100.0  # an evaluation
    take_steps(made, clock, [8.0] * (WARM_UP_STEPS - 1) + [2.0, 4.0, 2.0])
    assert made.median_step_seconds() == 2.0
    assert made.seconds == 8.0 * WARM_UP_STEPS + 8.0
    assert list(made.forward_backward_seconds) == [each / 2 for each in made.step_seconds]


def test_a_long_run_keeps_the_last_times_only(ticking):
    made, clock = ticking
    take_steps(made, clock, [8.0] * 3 * KEPT_TIMES + [2.0] * KEPT_TIMES)
    assert len(made.step_seconds) == len(made.forward_backward_seconds) == KEPT_TIMES
    assert made.median_step_seconds() == 2.0  # all of them are known to be behind the warm-up
    assert made.seconds == 26.0 * KEPT_TIMES


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(ticking):
    made, clock = ticking
    made.add_batch(torch.arange(12).reshape(2, 6), None)
    take_steps(made, clock, [1.0, 2.0] * KEPT_TIMES)
    resumed = Meter(torch.device("cpu"))
    resumed.restore(made.state())
    for each in (made, resumed):
        each.add_batch(torch.arange(6).reshape(1, 6), None)
        take_steps(each, clock, [4.0])
    assert resumed.state() == made.state()
    assert len(resumed.step_seconds) == KEPT_TIMES


def test_bytes_of_tensors_in_nested_state():
    held = {"a": torch.zeros(3, dtype=torch.float64), "b": [torch.zeros(5, dtype=torch.bfloat16), 7, {"c": None}]}
    assert tensor_bytes(held) == 24 + 10


def test_the_peak_of_memory_is_at_least_what_was_held_and_does_not_fall():
    before = peak_resident_bytes()
    held = torch.ones(before // 4 + 2**22)  # more than the whole process had
    peak = peak_resident_bytes()
    assert peak >= held.nbytes
    del held
    assert peak_resident_bytes() >= 0.99 * peak  # the kernel counts in batches

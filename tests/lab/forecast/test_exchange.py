"""Bytes on the wire, against sums by hand; who owns what."""

import pytest

from cegm.lab.forecast.exchange import all_reduce, owned, sent_by_ddp, sent_by_fsdp, spread
from cegm.lab.forecast.weights import Weight


def matrix(name, outputs, inputs, contexts=0):
    size = 4 * outputs * inputs
    return Weight(name, (outputs, inputs), size, size, contexts=contexts, pieces=((outputs, inputs, 0, 0),))


VECTOR = Weight("norm", (6,), 24, 52)


def test_rings():
    assert all_reduce(100, 1) == spread(100, 1) == 0
    assert all_reduce(100, 4) == 150  # three quarters, twice
    assert spread(100, 4) == 75


def test_ddp_by_hand():
    weights = [matrix("a", 6, 2, contexts=148), VECTOR]  # 48 and 24 bytes of weights
    out = sent_by_ddp(weights, 4)
    assert out.gradients == 2 * (48 + 24) * 3 / 4
    assert out.contexts == 2 * 148 * 3 / 4
    assert out.weights == out.matrices == 0


def test_fsdp_by_hand():
    weights = [matrix("a", 8, 4), matrix("b", 4, 4), VECTOR]  # 128, 64 and 24 bytes
    parts = owned(weights, 4)
    out = sent_by_fsdp(weights, parts, 54 * 2, 3)
    # the busiest owns a: it sends its quarter of b's gradient, and three quarters of a's direction
    assert out.matrices == 64 / 4 + 128 * 3 / 4
    assert out.gradients == 3 * 216 * 3 / 4  # after each of three micro-batches
    assert out.weights == 3 * 2 * (54 * 2) * 3 / 4  # 54 entries of two bytes, forward and backward


def test_adamw_owns_nothing():
    parts = owned([VECTOR], 3)
    assert parts == [[], [], []]
    assert sent_by_fsdp([VECTOR], parts, 24, 1).matrices == 0


@pytest.mark.parametrize("devices", [1, 2, 3, 7, 64])
def test_every_matrix_has_one_owner_and_loads_are_balanced(devices):
    weights = [matrix(str(index), 4 + index % 5, 8) for index in range(20)] + [VECTOR]
    parts = owned(weights, devices)
    names = [weight.name for part in parts for weight in part]
    assert sorted(names) == sorted(weight.name for weight in weights[:-1])
    loads = [sum(weight.work for weight in part) for part in parts]
    assert max(loads) - min(loads) <= max(weight.work for weight in weights[:-1])


def test_the_heaviest_goes_first_to_the_least_loaded():
    weights = [matrix("small", 2, 2), matrix("large", 8, 8), matrix("middle", 4, 4)]
    assert [[w.name for w in part] for part in owned(weights, 2)] == [["large"], ["middle", "small"]]


def test_a_fused_weight_has_one_owner_and_the_work_of_its_pieces():
    fused = Weight("qkv", (12, 4), 192, 192, pieces=((4, 4, 0, 0),) * 3)
    assert fused.work == 3 * 4**3
    assert owned([fused], 2) == [[fused], []]

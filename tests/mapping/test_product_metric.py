"""The metric of a product against its definition, in float64."""

import pytest
import torch

from cegm.mapping.product_metric import LARGEST_TURN, product_roots


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_roots_are_those_of_the_definition():
    first, second, steps = drawn(2, 3, 7), drawn(2, 5, 3, seed=1), torch.tensor([0.01, 0.3], dtype=torch.float64)
    left, right = product_roots(first, second, steps)
    inverse = torch.linalg.inv(first @ first.mT)
    torch.testing.assert_close(right @ right.mT, inverse)
    metric = second.mT @ second + (steps[:, None, None] / LARGEST_TURN) ** 2 * inverse
    torch.testing.assert_close(torch.linalg.inv(left @ left.mT), metric)


def test_the_maps_of_other_factors_of_the_same_product_are_the_same():
    first, second, gradient = drawn(1, 3, 7), drawn(1, 5, 3, seed=1), drawn(1, 5, 7, seed=2)
    change, steps = drawn(1, 3, 3, seed=3), torch.ones(1, dtype=torch.float64)
    others = change @ first, second @ torch.linalg.inv(change)
    found = []
    for a, b in ((first, second), others):
        left, right = product_roots(a, b, steps)
        found.append((b @ left @ left.mT @ b.mT @ gradient, gradient @ a.mT @ right @ right.mT @ a))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("step", [0.0, 1e-12, 0.1])
def test_a_second_factor_of_zeros_leaves_the_first_its_own_metric(step):
    first = drawn(1, 3, 7).float()
    left, right = product_roots(first, torch.zeros(1, 5, 3), torch.tensor([step]))
    assert left.isfinite().all()
    if step:
        expected = first @ first.mT * (LARGEST_TURN / step) ** 2
        torch.testing.assert_close(left @ left.mT, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    torch.testing.assert_close(right @ first @ first.mT @ right, torch.eye(3)[None], rtol=1e-4, atol=1e-4)


def test_singular_factors_have_finite_roots():
    first = drawn(1, 1, 7).float().expand(1, 3, 7) * torch.tensor([1.0, 1.0, 0.0])[:, None]
    roots = product_roots(first, first.mT, torch.ones(1))
    assert all(root.isfinite().all() for root in roots)

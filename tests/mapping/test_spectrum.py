import pytest
import torch

import oracle
import rounding
from cegm.mapping.spectrum import (
    context_map,
    map_left,
    map_right,
    matrix_power,
    power_by_eigenvalues,
    power_by_products,
    square_roots,
)


def context(features, tokens=200, decay=1.0):
    x = torch.randn(tokens, features) * torch.arange(1, features + 1).float() ** -decay
    return x.T @ x / tokens


@pytest.mark.parametrize("power", [-2.0, -1.0, -0.75, -0.5, -0.25, -0.3, 0.0, 0.25, 0.5, 0.7, 1.0, 1.5, 2.0])
@pytest.mark.parametrize(("features", "decay"), [(1, 1.0), (5, 0.5), (24, 1.0), (64, 2.0)])
def test_any_power_agrees_with_the_eigendecomposition_in_double(power, features, decay):
    s = context(features, decay=decay)
    expected = oracle.phi(s, power, 0.1)
    damped = s / s.trace() * features + 0.1 * torch.eye(features)
    # Of eigenvalues, the smallest is only as exact as the largest is.
    of_smallest = 1e-6 * max(0.0, -power) * float(torch.linalg.cond(damped))
    for found, tolerance in (
        (power_by_products(damped, power), 2e-5),
        (power_by_eigenvalues(damped, power), 5e-5 + of_smallest),
        (context_map(s[None], power, damping=0.1)[0], 5e-5 + of_smallest),
    ):
        assert float((found.double() - expected).norm() / expected.norm()) == pytest.approx(0, abs=tolerance)


def test_a_badly_conditioned_root_stays_accurate():
    values = torch.logspace(-6, 0, 32)
    q = torch.linalg.qr(torch.randn(32, 32, dtype=torch.float64))[0]
    matrix = (q @ torch.diag(values.double()) @ q.T).float()
    root, inverse_root = square_roots(matrix)
    assert float((root.double() @ root.double() - matrix).norm() / matrix.norm()) == pytest.approx(0, abs=1e-4)
    assert float((inverse_root @ root - torch.eye(32)).abs().max()) == pytest.approx(0, abs=2e-2)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e5])
def test_one_small_eigenvalue_whose_vector_is_spread_out_is_not_overlooked(condition):
    """As before a LayerNorm, whose output gradients sum to zero; no single element of the matrix shows it."""
    n = 256
    v = torch.full((n,), n**-0.5)
    matrix = torch.eye(n) - (1 - 1 / condition) * torch.outer(v, v)
    _, inverse_root = square_roots(matrix)
    assert float(v @ inverse_root @ v) == pytest.approx(condition**0.5, rel=1e-4 * condition**0.5)


@pytest.mark.parametrize("power", [-1.0, -0.5])
def test_without_damping_what_no_context_has_shown_is_bounded_by_rounding(power):
    x = torch.randn(3, 16)
    phi = context_map((x.T @ x)[None], power, damping=1e-8)
    assert phi.isfinite().all()
    assert float(torch.linalg.matrix_norm(phi, 2)) <= 1.01 * (16 / 3 * 16 * torch.finfo(phi.dtype).eps) ** power * 3


def test_products_take_over_where_an_eigendecomposition_fails(monkeypatch):
    def fail(matrix):
        raise torch.linalg.LinAlgError("did not converge")

    s = context(6) + 0.1 * torch.eye(6)
    expected = power_by_products(s, -0.5)
    monkeypatch.setattr(torch.linalg, "eigh", fail)
    assert torch.equal(matrix_power(s, -0.5), expected)


def test_batches_change_no_bit():
    contexts = torch.stack([context(48)[None] for _ in range(3)])
    together = context_map(contexts, -0.5, 0.1)
    assert all(torch.equal(context_map(one, -0.5, 0.1), whole) for one, whole in zip(contexts, together, strict=True))


def test_power_zero_is_the_identity_and_one_the_matrix():
    s = context(6)
    assert torch.equal(matrix_power(s, 0.0), torch.eye(6))
    assert torch.allclose(matrix_power(s, 1.0), s)


@pytest.mark.parametrize("power", [-1.0, -0.5, 1.0])
def test_a_context_of_zeros_maps_nothing(power):
    both = torch.stack([torch.zeros(2, 3, 3), torch.eye(3).repeat(2, 1, 1)])
    assert torch.equal(context_map(both, power, damping=0.1)[0], torch.eye(3).repeat(2, 1, 1))


@pytest.mark.parametrize("power", [-1.0, -0.5, 0.5, 1.0])
def test_a_rank_one_context(power):
    x = torch.randn(12)
    s = torch.outer(x, x)
    expected = oracle.phi(s, power, 0.1)
    found = context_map(s[None], power, 0.1)[0].double()
    assert float((found - expected).norm() / expected.norm()) == pytest.approx(0, abs=1e-4)


def test_scale_of_the_contexts_does_not_matter():
    s = context(10)[None]
    for factor in (1e-12, 1e12):
        assert torch.allclose(context_map(s * factor, -0.5, 0.1), context_map(s, -0.5, 0.1), rtol=1e-4, atol=1e-5)


def test_blocks_share_one_trace():
    """The mean eigenvalue is that of all heads, so that a head with weak contexts stays weak."""
    blocks = torch.stack([context(4), 100 * context(4)])
    phi = context_map(blocks, 1.0, 0.0)
    expected = oracle.phi(oracle.block_diagonal(blocks), 1.0, 0.0)
    assert torch.allclose(oracle.block_diagonal(phi).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("outputs", "inputs", "heads"), [(6, 4, 1), (4, 6, 2), (6, 6, 3), (8, 2, 2)])
def test_maps_are_products_with_the_block_diagonal(outputs, inputs, heads):
    gradient = torch.randn(3, outputs, inputs)
    right = torch.randn(3, heads, inputs // heads, inputs // heads)
    left = torch.randn(3, heads, outputs // heads, outputs // heads)
    for index in range(3):
        dense = gradient[index] @ oracle.block_diagonal(right[index]).T
        size = gradient[index].abs() @ oracle.block_diagonal(right[index].abs()).T
        rounding.agree(map_right(gradient, right)[index], dense, rounding.of_sum(inputs, size))
        dense = oracle.block_diagonal(left[index]) @ gradient[index]
        size = oracle.block_diagonal(left[index].abs()) @ gradient[index].abs()
        rounding.agree(map_left(gradient, left)[index], dense, rounding.of_sum(outputs, size))

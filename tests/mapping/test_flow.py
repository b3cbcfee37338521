import pytest
import torch

import oracle
from cegm.mapping.flow import flow, spectral_radius
from cegm.mapping.spectrum import context_map


def a_map(width, power=-0.5, rank=None):
    vectors = torch.randn(rank or 3 * width, width, dtype=torch.float64)
    return context_map((vectors.T @ vectors)[None], power, 0.1)[0]


@pytest.mark.parametrize(("width", "rank"), [(1, None), (5, None), (8, 1), (16, None)])
@pytest.mark.parametrize("time", [0.0, 0.3, 4.0])
def test_the_step_equals_a_fine_integration(width, rank, time):
    gradient, phi = torch.randn(3, width, dtype=torch.float64), a_map(width, rank=rank)
    stepped = gradient @ flow(phi, time, gain=0.3, decay=1.0)
    exact = oracle.runge_kutta_flow(gradient, phi, time, gain=0.3, decay=1.0)
    assert torch.allclose(stepped, exact, atol=1e-6)


def test_two_half_steps_are_one_and_a_batch_is_its_members():
    maps = torch.stack([a_map(6), a_map(6, power=1.0)])
    whole, half = flow(maps, 1.0, 0.01, 1.0), flow(maps, 0.5, 0.01, 1.0)
    assert torch.allclose(half @ half, whole, atol=1e-10)
    assert torch.allclose(whole[1], flow(maps[1], 1.0, 0.01, 1.0))


def test_without_time_nothing_flows_and_without_context_it_only_fades():
    assert torch.equal(flow(a_map(4), 0.0, 0.3, 1.0), torch.eye(4, dtype=torch.float64))
    fading = flow(torch.zeros(4, 4), 2.0, 0.3, 1.5)
    assert torch.allclose(fading, torch.eye(4) * torch.tensor(-3.0).exp())


def test_the_spectral_radius_is_the_largest_eigenvalue():
    maps = torch.stack([torch.diag(torch.tensor([0.5, 2.0, 4.0])), torch.ones(3, 3)])
    assert spectral_radius(maps).tolist() == pytest.approx([4.0, 3.0])


def test_a_stable_flow_shrinks_every_gradient_and_an_unstable_one_does_not():
    phi, gradient = a_map(5), torch.randn(2, 5, dtype=torch.float64)
    limit = 1.0 / float(spectral_radius(phi))
    shrunk = gradient @ flow(phi, 50.0, 0.9 * limit, 1.0)
    grown = gradient @ flow(phi, 50.0, 1.1 * limit, 1.0)
    assert float(shrunk.norm()) < float(gradient.norm()) < float(grown.norm())

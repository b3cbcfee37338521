"""The map of retention against its definition by eigendecomposition, in float64."""

import pytest
import torch

import oracle
from cegm.context.card import Spectrum, spectrum
from cegm.mapping.home_map import at_norm_of, home_map


def moment(width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(300, width, generator=generator) * torch.linspace(0, -4, width).exp()
    return vectors.mT @ vectors / 300


def parallel(a, b):
    return float(torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0))


@pytest.mark.parametrize("directions", [1, 6, 12, 24])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("damping", [0.003, 0.1])
def test_it_is_the_damped_power_of_home_contexts(directions, power, damping):
    home = spectrum(moment(24), directions)
    direction = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))
    turned = home_map(home, power, damping).right(direction)
    expected = direction.double() @ oracle.phi(home.dense(), -power, damping)
    assert parallel(turned, expected) == pytest.approx(1.0, abs=1e-6)
    other = home_map(home, power, damping).left(direction.mT)
    assert torch.equal(other, turned.mT)


def test_power_zero_is_the_identity():
    direction = torch.randn(5, 24)
    assert torch.equal(home_map(spectrum(moment(24), 6), 0.0, 0.01).right(direction), direction)


def test_blocks_are_mapped_apart():
    blocks = [moment(6, seed) for seed in (1, 2)]
    home = spectrum(torch.stack(blocks), 6)
    direction = torch.randn(12, 5)
    turned = home_map(home, 1.0, 0.01).left(direction)
    for index, block in enumerate(blocks):
        rows = slice(6 * index, 6 * index + 6)
        expected = oracle.phi(block, -1.0, 0.01) @ direction[rows].double()
        assert parallel(turned[rows], expected) == pytest.approx(1.0, abs=1e-6)


def test_a_home_of_zeros_maps_nothing_and_stays_finite():
    home = Spectrum(torch.linalg.qr(torch.randn(8, 3)).Q, torch.zeros(3), torch.zeros(()))
    direction = torch.randn(2, 8)
    torch.testing.assert_close(home_map(home, 1.0, 0.01).right(direction), direction)


def test_the_norm_is_kept_and_zero_stays_zero():
    direction = torch.randn(4, 6)
    turned = at_norm_of(torch.randn(4, 6), direction)
    assert float(turned.norm()) == pytest.approx(float(direction.norm()), rel=1e-6)
    assert not at_norm_of(torch.zeros(4, 6), torch.zeros(4, 6)).any()


def test_the_energy_that_home_contexts_notice_falls_with_the_power():
    home = spectrum(moment(24), 24)
    direction = torch.randn(50, 24, generator=torch.Generator().manual_seed(3))
    energies = [float(home.energy(home_map(home, power, 0.01).right(direction))) for power in (0.0, 0.5, 1.0, 2.0)]
    assert energies == sorted(energies, reverse=True)
    assert energies[2] < 0.1 * energies[0]

import pytest
import torch
from torch.optim._muon import _zeropower_via_newtonschulz

import oracle
import rounding
from cegm.mapping.normalize import (
    QUINTIC,
    balance_rows,
    effective_ranks,
    frobenius_norms,
    gram_polar,
    multiplies_bfloat16,
    normalize,
    polar,
    polar_dtype,
    spectral_norms,
)
from cegm.options import RECOMMENDED

SHAPES = [(5, 5), (4, 9), (9, 4), (1, 7), (7, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_polar_is_torchs_to_the_bit(shape):
    batch = torch.randn(4, *shape)
    ours = polar(batch, 1e-7, torch.bfloat16)
    for matrix, direction in zip(batch, ours, strict=True):
        assert torch.equal(direction, _zeropower_via_newtonschulz(matrix, QUINTIC, 5, 1e-7))


@pytest.mark.parametrize("shape", SHAPES)
def test_polar_agrees_with_float64(shape):
    batch = torch.randn(3, *shape)
    for matrix, direction in zip(batch, polar(batch, 1e-7, torch.float32), strict=True):
        assert torch.allclose(direction.double(), oracle.quintic_polar(matrix), atol=1e-4)


@pytest.mark.parametrize("shape", [*SHAPES, (24, 96), (96, 24)])
@pytest.mark.parametrize(("decay", "tolerance"), [(0.0, 2e-4), (3.0, 3e-3)])
def test_the_iteration_over_the_gram_matrix_is_the_same_iteration(shape, decay, tolerance):
    """Singular values below a thousandth of the norm lose digits to the square, far fewer than the quintic leaves open."""
    batch = torch.randn(3, *shape) * torch.arange(1, shape[1] + 1) ** -decay
    for matrix, direction in zip(batch, gram_polar(batch, 1e-7), strict=True):
        expected = oracle.quintic_polar(matrix)
        assert float((direction.double() - expected).norm() / expected.norm()) == pytest.approx(0, abs=tolerance)


def test_the_gram_matrix_is_taken_for_long_matrices_in_true_float32_only():
    batch = torch.randn(2, 4, 16)
    assert torch.equal(normalize(batch, "polar", 1e-7, torch.float32), gram_polar(batch, 1e-7))
    assert torch.equal(normalize(batch.mT, "polar", 1e-7, torch.float32), gram_polar(batch.mT, 1e-7))
    assert torch.equal(normalize(batch, "polar", 1e-7, torch.bfloat16), polar(batch, 1e-7, torch.bfloat16))
    square = batch[..., :7]
    assert torch.equal(normalize(square, "polar", 1e-7, torch.float32), polar(square, 1e-7, torch.float32))
    torch.set_float32_matmul_precision("high")
    try:
        assert torch.equal(normalize(batch, "polar", 1e-7, torch.float32), polar(batch, 1e-7, torch.float32))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_polar_brings_singular_values_near_one():
    values = torch.linalg.svdvals(polar(torch.randn(2, 32, 64), 1e-7, torch.float32))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3


@pytest.mark.parametrize("shape", SHAPES)
def test_spectral_norms_agree_with_the_decomposition(shape):
    batch = torch.randn(5, *shape) * torch.tensor([1e-9, 1e-3, 1, 1e3, 1e9])[:, None, None]
    assert torch.allclose(spectral_norms(batch), torch.linalg.svdvals(batch)[:, 0], rtol=2e-5)


def test_spectral_norm_with_a_tie_of_singular_values():
    assert float(spectral_norms(torch.eye(300)[None])) == pytest.approx(1, rel=2e-5)


@pytest.mark.parametrize("kind", ["polar", "spectral", "frobenius", "none"])
@pytest.mark.parametrize("shape", [(4, 6), (4, 12), (12, 4)])
def test_zeros_stay_zeros_and_noise_is_not_amplified(kind, shape):
    zeros = torch.zeros(2, *shape)
    assert torch.equal(normalize(zeros, kind, 1e-7, torch.float32), zeros)
    noise = torch.randn(2, *shape) * 1e-20
    assert float(normalize(noise, kind, 1e-7, torch.float32).abs().max()) < 1e-9


@pytest.mark.parametrize("kind", ["polar", "spectral", "frobenius", "none"])
@pytest.mark.parametrize("shape", [(6, 5), (4, 12), (12, 4)])
def test_each_matrix_of_a_batch_is_normalised_by_itself(kind, shape):
    batch = torch.randn(4, *shape) * torch.tensor([1.0, 10, 100, 1000])[:, None, None]
    together = normalize(batch, kind, 1e-7, torch.float32)
    for index in range(4):
        assert torch.equal(together[index], normalize(batch[index : index + 1], kind, 1e-7, torch.float32)[0])


def test_frobenius_norms():
    batch = torch.randn(3, 4, 5)
    norms = batch.flatten(1).norm(dim=1)
    rounding.agree(frobenius_norms(batch).flatten(), norms, rounding.of_sum(batch[0].numel(), norms))


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (7, 7), (1, 5)])
def test_effective_ranks_agree_with_the_decomposition(shape):
    batch = torch.randn(3, *shape) * torch.tensor([1e-20, 1.0, 1e15])[:, None, None]
    energies = torch.linalg.svdvals(batch.double()).square()
    expected = energies.sum(-1).square() / energies.square().sum(-1)
    assert torch.allclose(effective_ranks(batch).double(), expected, rtol=1e-4)


def test_effective_ranks_of_known_matrices():
    one = torch.outer(torch.arange(1.0, 7), torch.arange(1.0, 5))
    two = torch.diag(torch.tensor([3.0, 3, 0, 0, 0, 0]))[:, :4]
    four = torch.eye(6)[:, :4] * 1e-3
    unequal = torch.diag(torch.tensor([2.0, 1, 0, 0, 0, 0]))[:, :4]  # (4 + 1)^2 / (16 + 1)
    batch = torch.stack([one, two, four, unequal, torch.zeros(6, 4)])
    assert effective_ranks(batch).tolist() == pytest.approx([1, 2, 4, 25 / 17, float("nan")], rel=1e-5, nan_ok=True)


def test_balanced_rows_agree_with_loops_and_keep_the_norm():
    direction = torch.randn(2, 3, 8) * torch.tensor([1.0, 5, 0.1])[None, :, None]
    moments = torch.rand(2, 3, 1)
    before = moments.clone()
    balanced = balance_rows(direction, moments, 0.9, 1e-7)
    for index in range(2):
        rows = []
        for row in range(3):
            moment = 0.9 * before[index, row] + 0.1 * direction[index, row].square().mean()
            rounding.agree(moments[index, row], moment, rounding.of_sum(8 + 2, moment))
            rows.append(direction[index, row] / (moment.sqrt() + 1e-7))
        expected = torch.stack(rows)
        expected = expected * direction[index].norm() / expected.norm()
        rounding.agree(balanced[index], expected, rounding.of_sum(2 * 24 + 8, expected.abs()))
    norms = direction.flatten(1).norm(dim=1)
    rounding.agree(balanced.flatten(1).norm(dim=1), norms, rounding.of_sum(3 * 24, norms))


def test_balancing_zeros_gives_zeros():
    assert torch.equal(balance_rows(torch.zeros(1, 2, 3), torch.zeros(1, 2, 1), 0.9, 1e-7), torch.zeros(1, 2, 3))


def test_rows_of_each_matrix_of_a_batch_are_balanced_by_themselves():
    batch, moments = torch.randn(4, 6, 12), torch.rand(4, 6, 1)
    alone = [balance_rows(b[None], m[None].clone(), 0.9, 1e-7)[0] for b, m in zip(batch, moments, strict=True)]
    assert torch.equal(balance_rows(batch, moments, 0.9, 1e-7), torch.stack(alone))


@pytest.mark.parametrize("eps", [0.0, 1e-30, 1e-7])
def test_a_row_that_is_dead_from_the_start_stays_zero(eps):
    direction = torch.randn(1, 3, 8)
    direction[0, 1] = 0
    balanced = balance_rows(direction, torch.zeros(1, 3, 1), 0.9, eps)
    assert balanced.isfinite().all()
    assert torch.equal(balanced[0, 1], torch.zeros(8))


def test_muons_precision_is_torchs_when_the_options_are_muon():
    cpu = torch.device("cpu")
    muon = {**RECOMMENDED, "power": 0.0, "gradient_power": 0.0, "row_moment": False}
    assert polar_dtype(muon, cpu) == torch.bfloat16
    assert polar_dtype({**muon, "precision": "float32"}, cpu) == torch.float32
    assert polar_dtype(RECOMMENDED, torch.device("cuda")) == torch.bfloat16


@pytest.mark.parametrize(
    ("known", "used", "expected"),
    [
        ({"amx_bf16": True}, "AVX512", True),
        ({"amx_bf16": True}, "AVX2", False),
        ({"arm_bf16": True}, "DEFAULT", True),
        ({"avx512_bf16": True, "amx_bf16": False}, "AVX512", False),
        ({}, "AVX2", False),
    ],
)
def test_only_matrix_instructions_that_are_used_make_bfloat16_worth_its_rounding(known, used, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: used)
    assert multiplies_bfloat16() is expected
    assert polar_dtype(RECOMMENDED, torch.device("cpu")) == (torch.bfloat16 if expected else torch.float32)

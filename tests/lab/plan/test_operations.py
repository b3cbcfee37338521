"""Operations against sums by hand and against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cegm.lab.plan.operations import attention_operations, normalize_operations, polar_operations, power_operations
from cegm.mapping.normalize import normalize


def test_five_steps_of_a_square_matrix_by_hand():
    # per step: two products 4x4x4 with the long side (one for the Gram matrix, one for the factor), one of the Gram matrix
    assert polar_operations(4, 4, torch.float32) == 5 * 3 * 2 * 4**3 == 1920


def test_a_long_matrix_is_taken_by_its_gram_matrix_in_float32_alone():
    # 2 x 8: two products with the long side (2 x 2 x 8), seventeen with the short side alone (2 x 2 x 2)
    assert polar_operations(2, 8, torch.float32) == 2 * (2 * 2 * 2 * 8) + 17 * (2 * 2**3) == 400
    assert polar_operations(8, 2, torch.float32) == polar_operations(2, 8, torch.float32)
    assert polar_operations(2, 8, torch.bfloat16) == 5 * (2 * 2 * 2**2 * 8 + 2 * 2**3) == 720


@pytest.mark.parametrize("kind", ["polar", "spectral", "frobenius", "none"])
@pytest.mark.parametrize("shape", [(12, 12), (8, 24), (24, 8)])
def test_line_10_has_the_products_that_torch_counts(kind, shape):
    with FlopCounterMode(display=False) as counter:
        normalize(torch.randn(1, *shape), kind, 1e-7, torch.float32)
    assert normalize_operations(*shape, kind, torch.float32) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("power", "products"),
    [(1.0, 0), (2.0, 1), (3.0, 2), (0.5, 22), (-0.5, 22), (-1.0, 23), (-2.0, 24), (0.25, 44), (-0.625, 67), (1.5, 23)],
)
def test_powers_by_products_where_there_is_no_fast_eigendecomposition(power, products):
    assert power_operations(10, power, "cuda") == products * 2000


def test_powers_by_eigenvalues_on_processors_but_for_whole_ones():
    assert power_operations(10, -1.0, "cpu") == power_operations(10, 0.5, "cpu") == 11_000
    assert power_operations(10, 2.0, "cpu") == 2000


def test_causal_attention_counts_half_of_both_products():
    # 2 rows of 4 tokens, 3 features: 2 products x 2 operations x 2 rows x 4 x 4 x 3, halved, in each of 5 layers
    assert attention_operations(8, 4, 5, 3) == 5 * (2 * 2 * 2 * 4 * 4 * 3) / 2

"""Operations that are counted, against sums by hand."""

import pytest
import torch
from torch.nn import functional as F

from cegm.lab.forecast.operations import counted, counter, normalize_operations, operations, power_operations


def test_five_steps_of_a_square_matrix_by_hand():
    # per step: two products 4x4x4 with the long side (one for the Gram matrix, one for the factor), one of the Gram matrix
    assert normalize_operations(4, 4, "polar", torch.float32) == 5 * 3 * 2 * 4**3 == 1920


def test_a_long_matrix_is_taken_by_its_gram_matrix_in_float32_alone():
    # 2 x 8: two products with the long side (2 x 2 x 8), seventeen with the short side alone (2 x 2 x 2)
    assert normalize_operations(2, 8, "polar", torch.float32) == 2 * (2 * 2 * 2 * 8) + 17 * (2 * 2**3) == 400
    assert normalize_operations(8, 2, "polar", torch.float32) == 400
    assert normalize_operations(2, 8, "polar", torch.bfloat16) == 5 * (2 * 2 * 2**2 * 8 + 2 * 2**3) == 720


def test_other_norms_by_hand():
    assert normalize_operations(4, 8, "spectral", torch.float32) == 2 * 4 * 4 * 8 + 20 * 2 * 4**3
    assert (
        normalize_operations(4, 8, "frobenius", torch.float32) == normalize_operations(4, 8, "none", torch.float32) == 0
    )


@pytest.mark.parametrize(
    ("power", "products"),
    [(1.0, 0), (2.0, 1), (3.0, 2), (0.5, 22), (-0.5, 22), (-1.0, 23), (-2.0, 24), (0.25, 44), (-0.625, 67), (1.5, 23)],
)
def test_powers_by_products_where_there_is_no_fast_eigendecomposition(power, products):
    """Of six iterations of four products the first lacks one, which would meet an identity, and the last one that nobody reads."""
    assert power_operations(10, power, "cuda") == pytest.approx(products * 2000)


def test_powers_by_eigenvalues_on_processors_but_for_whole_ones():
    assert power_operations(10, -1.0, "cpu") == power_operations(10, 0.5, "cpu") == 11_000  # 9 n^3, and a product
    assert power_operations(10, 2.0, "cpu") == 2000


def test_causal_attention_counts_half_of_its_products():
    # 2 rows of 4 tokens, 3 heads of 8 features: a product is 2 operations x 2 rows x 3 heads x 4 x 4 x 8, of which half
    query, key, value = (torch.randn(2, 3, 4, 8, requires_grad=True) for _ in range(3))
    half = 2 * 2 * 3 * 4 * 4 * 8 / 2
    with counter() as seen:
        output = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        forward = operations(seen)
        output.sum().backward()
    assert forward == 2 * half  # scores, weighted values
    assert operations(seen) - forward == 5 * half  # scores once more, and a gradient of each factor of both


def test_attention_that_forms_its_weights_does_all_of_them():
    query, key = torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    assert counted(lambda: (query @ key.mT).softmax(-1) @ key) == 2 * (2 * 3 * 4 * 4 * 8)

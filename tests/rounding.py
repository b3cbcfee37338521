"""How far apart two computations of the same numbers may be: what rounding makes of another order of sums, and no more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ALLOWANCE = 4
"""Times that another order may be off as far as the orders that were measured."""


def of_sum(terms: int, size: Tensor | float, dtype: torch.dtype = torch.float32) -> Tensor | float:
    """Between two orders of a sum of `terms` products whose absolute values sum to `size`.

    Each is off by at most `n u / (1 - n u)` of the size, `u` half the distance from 1 to the next number (Higham 2002, section
    3.1); so is a product of matrices, whose size is the product of their absolute values, and a sum of sums, whose `terms`
    are those of both.
    """
    relative = terms * torch.finfo(dtype).eps / 2
    return 2 * relative / (1 - relative) * size


def of_orders(outcome: Callable[[Tensor], Tensor], rows: int, orders: int = 5) -> float:
    """Measured, for what no formula follows, such as a training: how far rows in other orders move it, with an allowance.

    Args:
        outcome: The computation, of an order of the rows; all its numbers are float32.
        rows: How many there are.
        orders: How many orders are tried.
    """
    expected = outcome(torch.arange(rows)).double()
    draws = [torch.randperm(rows, generator=torch.Generator().manual_seed(seed)) for seed in range(orders)]
    moved = max(float((outcome(order).double() - expected).abs().max()) for order in draws)
    last_bit = torch.finfo(torch.float32).eps * float(expected.abs().max())
    return ALLOWANCE * max(moved, last_bit)


def with_other_last_bits(numbers: Tensor) -> Tensor:
    """Each number as it is, or one or two bits up or down, as another order of sums might have left it."""
    return numbers * (1 + torch.finfo(numbers.dtype).eps * torch.randint(-1, 2, numbers.shape))


def agree(found: Tensor, expected: Tensor, bound: Tensor | float) -> None:
    """Asserts that two computations are nowhere further apart than a bound for all numbers, or for each its own."""
    off = (found.detach().double() - expected.detach().double()).abs()
    worst = int((off - bound).argmax())
    limit = torch.as_tensor(bound).double().expand_as(off).flatten()[worst]
    assert bool((off <= bound).all()), (
        f"{float(off.flatten()[worst]):.2e} apart, where rounding explains {float(limit):.2e}"
    )

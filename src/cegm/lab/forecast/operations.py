"""Operations of matrix products, as torch's own counter sees them. Needs torch only, so that benchmarks on bare machines share it.

A multiplication and an addition are two operations. Products are what decides; where there are none, it is the bytes that go
through memory (`cegm.lab.forecast.weights`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from cegm.mapping.normalize import normalize
from cegm.mapping.spectrum import matrix_power, power_by_products
from cegm.options import Normalize

EIGENVALUES = 9
"""Times width cubed, of eigenvalues and vectors (Golub and Van Loan, Matrix Computations, section 8.3)."""

WIDTH = 8
CONDITION = 1e3
"""Of the block whose power is taken to count products; from 10 to 10^4 their number is the same."""

aten: Any = torch.ops.aten
UNCOUNTED: dict[Any, Callable[..., float]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *shapes, **_: sdpa_backward_flop_count(
        *shapes[:4]
    ),
    aten._linalg_eigh: lambda shape, *_, **__: EIGENVALUES * math.prod(shape) * shape[-1],
}
"""What torch's counter does not know: operations from the shapes of arguments."""


def counter() -> FlopCounterMode:
    """Counts inside `with`; `operations` reads it."""
    return FlopCounterMode(display=False, custom_mapping=UNCOUNTED)


def operations(seen: FlopCounterMode) -> float:
    """What a counter has seen; of fused attention half, because under a causal mask half of the scores are never computed."""
    counts = seen.get_flop_counts().get("Global", {}).items()
    return float(sum(count / 2 if "attention" in str(operator) else count for operator, count in counts))


def counted(work: Callable[..., Any], *given: Any) -> float:
    """Operations of one call."""
    with counter() as seen:
        work(*given)
    return operations(seen)


@cache
def normalize_operations(outputs: int, inputs: int, kind: Normalize, dtype: torch.dtype) -> float:
    """Of line 10 for one matrix, in the precision of the polar iteration."""
    return counted(normalize, torch.empty(1, outputs, inputs, device="meta"), kind, 1e-7, dtype)


@cache
def power_operations(width: int, power: float, device: str) -> float:
    """Of `Phi`, the power of one block: by eigenvalues on processors, by products elsewhere; see `cegm.mapping.spectrum`.

    Args:
        width: Of the block.
        power: `p`.
        device: `cpu` or `cuda`.
    """
    if device == "cpu":
        with FakeTensorMode():
            return counted(matrix_power, torch.empty(width, width), power)
    # How many products a root takes depends on numbers, so a small block has some.
    block = torch.logspace(0.0, -math.log10(CONDITION), WIDTH).diag()
    return counted(power_by_products, block, power) * (width / WIDTH) ** 3

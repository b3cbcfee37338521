"""Which entanglement losses there are. No torch here: the command line reads this file to print its help."""

from __future__ import annotations

import math
from typing import Literal, get_args

from cegm.spelling import nearest

Kernel = Literal["cosine", "rbf", "dot"]
StopGradient = Literal["none", "context", "gradient"]

KERNELS: tuple[str, ...] = get_args(Kernel)
STOP_GRADIENTS: tuple[str, ...] = get_args(StopGradient)


def check(beta: float, kernel: str, stop_gradient: str) -> None:
    """Refuses what is unknown or has no minimum.

    Raises:
        ValueError: In one line that names the value and the remedy.
    """
    for name, value, choices in (("kernel", kernel, KERNELS), ("stop_gradient", stop_gradient, STOP_GRADIENTS)):
        if value not in choices:
            raise ValueError(f"{name} {value!r} does not exist; {nearest(value, choices)}")
    if not math.isfinite(beta):
        raise ValueError(f"beta={beta} must be a finite number, such as 0.1")
    if kernel == "dot" and beta < -1:
        # L + beta (L - H): on a confidently wrong token H is 0 and the total is (1 + beta) times the margin.
        raise ValueError(f"beta={beta} with kernel 'dot' has no minimum; use beta of at least -1, or another kernel")

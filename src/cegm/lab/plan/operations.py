"""Floating-point operations of a model's passes and of Algorithm 1. Needs torch only, so that benchmarks on bare machines share it.

A multiplication and an addition are two operations. What is counted are matrix products, which decide, and where there are
none the bytes that go through memory (`cegm.lab.plan.estimate`).
"""

from __future__ import annotations

import math

import torch

from cegm.mapping.normalize import POLAR_STEPS, SQUARINGS, prefers_gram
from cegm.mapping.spectrum import FRACTION_BITS

EIGENVALUES = 9 + 2
"""Times width cubed, of a power by eigenvalues: values and vectors (Golub and Van Loan, Matrix Computations, section 8.3), and their product."""

ROOT_PRODUCTS = 22
"""Products of one square root: six iterations of four, without those of the first that meet an identity and the last that nobody reads."""


def attention_operations(tokens: float, length: int, layers: int, width: int) -> float:
    """Forward, of scores and weighted values under a causal mask, half of which is never computed.

    Args:
        tokens: In all rows.
        length: Tokens of a row.
        layers: Layers with attention.
        width: Query heads times their features.
    """
    return 2 * 2.0 * tokens * length * width * layers / 2


def polar_operations(outputs: int, inputs: int, dtype: torch.dtype) -> float:
    """Of line 10 with `polar` for one matrix: see `cegm.mapping.normalize`."""
    short, long = sorted((outputs, inputs))
    if prefers_gram(outputs, inputs, dtype):
        return 2 * 2 * short**2 * long + (4 * POLAR_STEPS - 3) * 2 * short**3
    return POLAR_STEPS * (2 * 2 * short**2 * long + 2 * short**3)


def normalize_operations(outputs: int, inputs: int, kind: str, dtype: torch.dtype) -> float:
    """Of line 10 for one matrix, matrix products alone."""
    if kind == "polar":
        return polar_operations(outputs, inputs, dtype)
    short, long = sorted((outputs, inputs))
    return 2.0 * short**2 * long + SQUARINGS * 2.0 * short**3 if kind == "spectral" else 0.0


def power_operations(width: int, power: float, device: str) -> float:
    """Of `Phi`, the power of one block: by eigenvalues on processors, by products elsewhere; see `cegm.mapping.spectrum`.

    Args:
        width: Of the block.
        power: `p`.
        device: `cpu` or `cuda`.
    """
    if device == "cpu" and (power < 0 or power != int(power)):
        return EIGENVALUES * float(width) ** 3
    return 2.0 * _power_products(power) * float(width) ** 3


def _power_products(power: float) -> int:
    """Products of `cegm.mapping.spectrum.power_by_products`."""
    whole, fraction = divmod(round(abs(power) * 2**FRACTION_BITS), 2**FRACTION_BITS)
    roots = FRACTION_BITS - _trailing_zeros(fraction) if fraction else 0
    if power < 0 and whole:
        roots = max(roots, 1)
    inverted = 1 if power < 0 and whole else 0  # A^-1 is the square of A^(-1/2)
    factors = bin(fraction).count("1") + (1 if whole else 0)
    return ROOT_PRODUCTS * roots + inverted + _whole_power_products(whole) + max(0, factors - 1)


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _whole_power_products(power: int) -> int:
    """Of `A^power` by repeated squaring."""
    return math.floor(math.log2(power)) + bin(power).count("1") - 1 if power else 0

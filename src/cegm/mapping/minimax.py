"""Odd quintics `a x + b x^3 + c x^5` that, one after the other, bring singular values to 1 in the fewest products.

Each is the minimax approximation of 1 on the interval that the one before has left, starting from [1/100, 1]: the
composition that Polar Express (arXiv 2505.16932, theorem 3.1) proves optimal. The tests derive them anew.
"""

from __future__ import annotations

SMALLEST = 0.01
"""Singular values from here to 1 end within 1 +- 0.0126. Of a square root these are roots of eigenvalues: from 1e-4 of the bound on."""

QUINTICS = (
    (8.0933893, -23.6205745, 17.4462749),
    (3.6365842, -2.7219258, 0.5365462),
    (2.6612993, -1.9771556, 0.4526170),
    (1.9561709, -1.3375073, 0.3838526),
)
"""`(a, b, c)` in the order of their use."""

LIMIT = (15 / 8, -10 / 8, 3 / 8)
"""What they tend to: near 1 the error is cubed by each use."""

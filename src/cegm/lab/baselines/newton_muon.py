"""Newton-Muon (arXiv 2604.01472): the gradient meets the damped inverse of the running activation moment before the momentum.

`polar(momentum(G (K + .2 tr(K)/n I)^-1))` is Algorithm 1 with these options, refreshed every 16 steps as in the paper.
"""

from __future__ import annotations

from functools import partial

from cegm.optimizer import CEGM

NewtonMuon = partial(
    CEGM,
    entanglement=0.05,
    power=-1.0,
    gradient_power=0.0,
    damping=0.2,
    heads=1,
    recurrence=0.8 ** (1 / 16),  # per step; .8 per refresh, as in the authors' code
    refresh_every=16,
    map_first=True,
    row_moment=False,
)

"""NorMuon (arXiv 2510.05491): Muon with a second moment per output row. It is CEGM without contexts, line for line."""

from __future__ import annotations

from functools import partial

from cegm.optimizer import CEGM

NorMuon = partial(CEGM, entanglement=0.05, power=0.0, gradient_power=0.0, row_moment=True)

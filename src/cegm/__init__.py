"""Context-entangled gradients for language models: an optimizer, an honest comparison, and eyes.

Only torch is needed to use `cegm.CEGM`, `cegm.EntanglementLoss` and `cegm.explain`; training, comparison and reports are
extras (`pip install 'cegm[compare]'`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cegm.explanation import explain
    from cegm.home import card
    from cegm.loss import EntanglementLoss
    from cegm.optimizer import CEGM

__version__ = "0.2.0"

MEANING = 3
"""Of a run: raised with every change of this package after which the same inputs give other results; results are named by it, too."""

__all__ = ["CEGM", "EntanglementLoss", "__version__", "card", "explain"]

_HOMES = {
    "CEGM": "cegm.optimizer",
    "EntanglementLoss": "cegm.loss",
    "card": "cegm.home",
    "explain": "cegm.explanation",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and torch with it, when it is first asked for, so that `cegm --help` need not wait."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cegm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

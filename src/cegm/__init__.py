"""Context-entangled gradients for language models: an optimizer, an honest comparison, and eyes.

Only torch is needed to use `cegm.CEGM` and `cegm.EntanglementLoss`; training, comparison and reports are extras
(`pip install 'cegm[compare]'`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cegm.loss import EntanglementLoss
    from cegm.optimizer import CEGM

__version__ = "0.1.0"
__all__ = ["CEGM", "EntanglementLoss", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports optimizer and loss, and torch with them, when first asked for, so that `cegm --help` need not wait."""
    if name == "CEGM":
        from cegm.optimizer import CEGM

        return CEGM
    if name == "EntanglementLoss":
        from cegm.loss import EntanglementLoss

        return EntanglementLoss
    raise AttributeError(f"module 'cegm' has no attribute {name!r}")

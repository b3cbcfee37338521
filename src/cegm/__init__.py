"""Context-entangled gradients for language models: an optimizer, an honest comparison, and eyes.

Only torch is needed to use `cegm.CEGM`; training, comparison and reports are extras (`pip install 'cegm[compare]'`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cegm.explanation import explain
    from cegm.optimizer import CEGM

__version__ = "0.1.0"
__all__ = ["CEGM", "__version__", "explain"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and torch with it, when it is first asked for, so that `cegm --help` need not wait."""
    if name == "CEGM":
        from cegm.optimizer import CEGM

        return CEGM
    if name == "explain":
        from cegm.explanation import explain

        return explain
    raise AttributeError(f"module 'cegm' has no attribute {name!r}")

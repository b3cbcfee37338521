"""LoRA begun in the null space of home contexts (LoRA-Null, arXiv 2503.02659), whatever trains it then."""

from __future__ import annotations

from torch import nn

from cegm.context.card import ContextCard
from cegm.options import RECOMMENDED
from cegm.retained import Retention
from cegm.roles import assign


def begin_in_null_space(model: nn.Module, card: ContextCard) -> None:
    """Turns factor `A` of fresh adapters to `A S^-1` at the norm it had; the model stays the same function.

    The null space is soft, with the damping of retention, because contexts of a trained model leave no direction out.

    Args:
        model: With adapters of which `B` is zero; others stay as they are.
        card: Of its base model.

    Raises:
        ValueError: The card is of another model.
    """
    Retention(card, model).begin_adapters([a for a in assign(model) if a.role == "matrix"], RECOMMENDED)

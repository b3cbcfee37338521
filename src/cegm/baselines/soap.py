"""SOAP (arXiv 2409.11321, the implementation of `pytorch_optimizer`) with AdamW for the rest: Adam in Shampoo's eigenbasis."""

from __future__ import annotations

from collections.abc import Sequence

import pytorch_optimizer
from torch import nn

from cegm.baselines.paired import Paired
from cegm.groups import Role


class SOAP(Paired):
    """`pytorch_optimizer.SOAP` for the matrices and `torch.optim.AdamW` for the rest.

    Its first step only starts the statistics, as in the reference.

    Args:
        model: The model.
        lr: Learning rate of the matrices.
        weight_decay: Decoupled weight decay of the matrices.
        betas: Betas of the matrices; the second is also that of both Kronecker factors.
        precondition_frequency: Steps between two updates of the eigenbasis, >= 1.
        aux_lr: Learning rate of embeddings, head and vectors; None: `lr`.
        aux_betas: Their betas.
        aux_weight_decay: Weight decay of embeddings and head; None: `weight_decay`.
        group_patterns: As in `CEGM`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-3,
        *,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.95, 0.95),
        precondition_frequency: int = 10,
        aux_lr: float | None = None,
        aux_betas: tuple[float, float] = (0.9, 0.95),
        aux_weight_decay: float | None = None,
        group_patterns: Sequence[tuple[str, Role]] = (),
    ) -> None:
        super().__init__(
            model,
            pytorch_optimizer.SOAP,
            {"betas": betas, "precondition_frequency": precondition_frequency},
            lr=lr,
            weight_decay=weight_decay,
            aux_lr=aux_lr,
            aux_betas=aux_betas,
            aux_weight_decay=aux_weight_decay,
            group_patterns=group_patterns,
        )

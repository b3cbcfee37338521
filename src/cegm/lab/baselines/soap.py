"""SOAP (arXiv 2409.11321, the implementation of `pytorch_optimizer`) with AdamW for the rest: Adam in Shampoo's eigenbasis."""

from __future__ import annotations

import pytorch_optimizer
from torch import nn
from typing_extensions import Unpack

from cegm.lab.baselines.paired import Paired, Shared


class SOAP(Paired):
    """`pytorch_optimizer.SOAP` for the matrices and `torch.optim.AdamW` for the rest.

    Its first step only starts the statistics, as in the reference.

    Args:
        model: The model.
        lr: Learning rate of the matrices.
        betas: Betas of the matrices; the second is also that of both Kronecker factors.
        precondition_frequency: Steps between two updates of the eigenbasis, >= 1.
        **shared: See `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        precondition_frequency: int = 10,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(
            model,
            pytorch_optimizer.SOAP,
            {"betas": betas, "precondition_frequency": precondition_frequency},
            lr,
            **shared,
        )

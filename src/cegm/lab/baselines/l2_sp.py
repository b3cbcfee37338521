"""L2-SP (arXiv 1802.01483): AdamW with a second weight decay that leads back to where training began."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from typing_extensions import Unpack

from cegm.lab.baselines.anchored import BEGINNING, AnchoredAdamW
from cegm.lab.baselines.paired import Shared
from cegm.sharding import local


class L2SP(AnchoredAdamW):
    """AdamW with a pull `k (w - w0)` on every weight, decoupled as weight decay is and times the learning rate.

    It is taken implicitly, `w - w0` times `1 / (1 + h k)`, so that no `k` is too large.

    Args:
        model: The model.
        lr: Learning rate of the linear layers' matrices.
        betas: Betas of the matrices.
        pull: `k`, >= 0; 0 is AdamW.
        **shared: See `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        pull: float = 10.0,
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(model, lr, betas, {"pull": pull}, **shared)

    def hold(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Moves a weight towards its beginning."""
        pull = float(group["lr"]) * group["pull"]
        local(parameter).lerp_(local(state[BEGINNING]), pull / (1.0 + pull))

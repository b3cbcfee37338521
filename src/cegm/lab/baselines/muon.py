"""Muon with AdamW for the rest: the bar that counts. It is CEGM without contexts and row moments.

It equals `torch.optim.Muon` to the bit (a test proves it), takes the fused projections of GPT-2-like models apart as
Muon's authors do and torch does not, and works on equal shapes at once. Torch orthogonalises in bfloat16; on a processor
without matrix instructions for bfloat16 that takes 2 to 30 times as long as float32, which would make Muon
look worse in wall-clock time than it is; there the same five steps run in float32, with CEGM's own fast paths.
"""

from __future__ import annotations

from torch import nn
from typing_extensions import Unpack

from cegm.lab.baselines.paired import Shared
from cegm.mapping.normalize import multiplies_bfloat16
from cegm.optimizer import CEGM
from cegm.options import MomentumKernel, Precision


class Muon(CEGM):
    """Muon for the matrices and AdamW for the rest.

    Args:
        model: The model.
        lr: Learning rate of the matrices, scaled as torch's `match_rms_adamw`.
        momentum: Weight of the past, in [0, 1).
        nesterov: Look ahead.
        momentum_kernel: As CEGM's; only with `ema` it is torch's Muon.
        coefficient_period: Steps in which the mean age of `momentum_kernel="log"` falls.
        precision: Of the orthogonalisation: `bfloat16` is torch's, `float32` the same five steps in float32, `auto` the
            first unless the parameters are on a processor without such instructions.
        **shared: See `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-4,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        momentum_kernel: MomentumKernel = "ema",
        coefficient_period: int = 1000,
        precision: Precision = "auto",
        **shared: Unpack[Shared],
    ) -> None:
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum={momentum} is outside [0, 1); 0.95 is usual")
        slow = next(model.parameters()).device.type == "cpu" and not multiplies_bfloat16()
        super().__init__(
            model,
            lr,
            entanglement=1.0 - momentum,
            nesterov=nesterov,
            momentum_kernel=momentum_kernel,
            coefficient_period=coefficient_period,
            power=0.0,
            gradient_power=0.0,
            row_moment=False,
            precision=("float32" if slow else "bfloat16") if precision == "auto" else precision,
            **shared,
        )

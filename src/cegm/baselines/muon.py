"""Muon (torch's own) with AdamW for the rest: the bar that counts.

`torch.optim.Muon` orthogonalises in bfloat16. On a processor without matrix instructions for bfloat16 that is emulated
and 10 to 30 times slower than float32, which would make Muon look worse in wall-clock time than it is; there the same
iteration runs in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from cegm.baselines.paired import Paired, Shared
from cegm.mapping.normalize import polar
from cegm.options import Precision, multiplies_bfloat16


class Muon(Paired):
    """`torch.optim.Muon` for the matrices and `torch.optim.AdamW` for the rest, sharing one list of groups.

    Args:
        model: The model.
        lr: Learning rate of the matrices, scaled as `match_rms_adamw`.
        momentum: Weight of the past.
        nesterov: Look ahead.
        precision: Of the orthogonalisation: `bfloat16` is torch's, `float32` the same iteration in float32, `auto` the
            first unless the parameters are on a processor that emulates bfloat16.
        **shared: See `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-4,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        precision: Precision = "auto",
        **shared: Unpack[Shared],
    ) -> None:
        super().__init__(
            model,
            torch.optim.Muon,
            {"momentum": momentum, "nesterov": nesterov, "adjust_lr_fn": "match_rms_adamw"},
            lr,
            **shared,
        )
        on_processor = self.param_groups[0]["params"][0].device.type == "cpu"
        self._float32 = precision == "float32" or (precision == "auto" and on_processor and not multiplies_bfloat16())

    def step_matrices(self) -> None:
        """Torch's Muon, in float32 where bfloat16 is emulated."""
        with _orthogonalise_in_float32() if self._float32 else nullcontext():
            super().step_matrices()


@contextmanager
def _orthogonalise_in_float32() -> Iterator[None]:
    """Replaces the one function of torch's Muon that fixes the precision, for the length of a step."""

    def orthogonalise(gradient: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
        return polar(gradient[None], eps, torch.float32, coefficients)[0]

    with mock.patch("torch.optim._muon._zeropower_via_newtonschulz", orthogonalise):
        yield

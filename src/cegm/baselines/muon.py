"""Muon (torch's own) with AdamW for the rest, behind one `Optimizer`: the bar that counts.

`torch.optim.Muon` orthogonalises in bfloat16. On a processor without matrix instructions for bfloat16 that is emulated
and 10 to 30 times slower than float32, which would make Muon look worse in wall-clock time than it is; there the same
iteration runs in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from cegm.baselines.adamw import AdamW
from cegm.groups import Role, table
from cegm.mapping.normalize import polar
from cegm.options import Precision, multiplies_bfloat16


class Muon(Optimizer):
    """`torch.optim.Muon` for the matrices and `torch.optim.AdamW` for the rest, sharing one list of groups.

    Args:
        model: The model.
        lr: Learning rate of the matrices, scaled as `match_rms_adamw`.
        weight_decay: Decoupled weight decay of the matrices.
        momentum: Weight of the past.
        nesterov: Look ahead.
        precision: Of the orthogonalisation: `bfloat16` is torch's, `float32` the same iteration in float32, `auto` the
            first unless the parameters are on a processor that emulates bfloat16.
        aux_lr: Learning rate of embeddings, head and vectors; None: `lr`.
        aux_betas: Their betas.
        aux_weight_decay: Weight decay of embeddings and head; None: `weight_decay`.
        group_patterns: As in `CEGM`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 3e-4,
        *,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        precision: Precision = "auto",
        aux_lr: float | None = None,
        aux_betas: tuple[float, float] = (0.9, 0.95),
        aux_weight_decay: float | None = None,
        group_patterns: Sequence[tuple[str, Role]] = (),
    ) -> None:
        rest = AdamW(
            model,
            lr,
            weight_decay=weight_decay,
            aux_lr=aux_lr,
            aux_betas=aux_betas,
            aux_weight_decay=aux_weight_decay,
            group_patterns=group_patterns,
        )
        self._assignments = rest.assignments
        matrices = [a.parameter for a in self._assignments if a.role == "matrix"]
        if not matrices:
            raise ValueError("the model has no matrix for Muon (no trainable linear layer); use AdamW for it")
        on_processor = matrices[0].device.type == "cpu"
        self._float32 = precision == "float32" or (precision == "auto" and on_processor and not multiplies_bfloat16())
        self._muon = torch.optim.Muon(
            [{"params": matrices, "role": "matrix"}],
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            adjust_lr_fn="match_rms_adamw",
        )
        self._rest = torch.optim.AdamW([g for g in rest.param_groups if g["role"] == "adamw"], lr=lr)
        super().__init__([*self._muon.param_groups, *self._rest.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Lets both parts see the groups and the state that schedulers and checkpoints see here."""
        for part, role in ((self._muon, "matrix"), (self._rest, "adamw")):
            part.param_groups = [group for group in self.param_groups if group["role"] == role]
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both parts."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with _orthogonalise_in_float32() if self._float32 else nullcontext():
            self._muon.step()  # type: ignore[no-untyped-call]
        self._rest.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads as torch does."""
        super().load_state_dict(state_dict)
        self._share()

    def summary(self) -> str:
        """The group table."""
        return table(self._assignments)


@contextmanager
def _orthogonalise_in_float32() -> Iterator[None]:
    """Replaces the one function of torch's Muon that fixes the precision, for the length of a step."""

    def orthogonalise(gradient: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
        return polar(gradient[None], eps, torch.float32, coefficients)[0]

    with mock.patch("torch.optim._muon._zeropower_via_newtonschulz", orthogonalise):
        yield

"""What every optimizer here has in common: a state that copies and loads as it is."""

from __future__ import annotations

from itertools import chain
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

ATTACHED = "_optimizer_"
"""Torch keeps an optimizer's hooks under names that begin so."""


def own_attributes(optimizer: Optimizer) -> dict[str, Any]:
    """All attributes but what others attached: hooks, and the `step` of a learning rate scheduler.

    That `step` belongs to the original and would step it, if a copy had it.
    """
    return {name: value for name, value in vars(optimizer).items() if name != "step" and not name.startswith(ATTACHED)}


class WholeState(Optimizer):
    """An optimizer whose copies are whole and whose checkpoints keep every bit of their statistics.

    Torch leaves all but groups and state out of a copy, and casts a loaded state to the dtype of the weights.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Everything of a copy or a pickle but what others attached."""
        return own_attributes(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads as torch does, but keeps the float32 of statistics when the weights have fewer bits.

        Hooks find what torch promises them: what pre-hooks return is what is loaded, post-hooks come when all is done.
        """
        final: dict[str, Any] = {}

        def accept(_: Optimizer, given: dict[str, Any]) -> None:
            self._require_loadable(given)
            final.update(given)

        last = self.register_load_state_dict_pre_hook(accept)
        first = self.register_load_state_dict_post_hook(lambda _: self._restore(final), prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            last.remove()
            first.remove()

    def _require_loadable(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError for a state that does not belong here; nothing has been changed yet."""

    def _restore(self, saved: dict[str, Any]) -> None:
        """Puts the saved tensors themselves in place of torch's casts; `step` stays where torch wants it."""
        identities = chain.from_iterable(group["params"] for group in saved["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for identity, parameter in zip(identities, parameters, strict=True):
            for key, value in saved["state"].get(identity, {}).items():
                if isinstance(value, Tensor) and key != "step":
                    self.state[parameter][key] = value.to(device=parameter.device, copy=True)

"""What observes one weight for an optimizer: it hands the products that it sees to the layers of the matrices in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cegm.context.layers import EntanglementLayer, Shapes
from cegm.context.patches import Geometry
from cegm.context.taps import Observer
from cegm.context.transforms import in_transform
from cegm.sharding import is_sharded

NEVER_CALLED = "its layer was never called"
COMPILED = "its layer was never called, or compiled: torch.compile does not show what a forward of its own does"
RESHAPED = "its weight got another shape since"
EVALUATES = "its layer is in eval mode, where contexts are not recorded (call model.train() before training)"
TRANSFORMED = (
    "its layer was called inside torch.func, vmap, a trace or forward-mode differentiation, which show no contexts"
)
PASSED_BY = (
    "its layer was called, but showed no product with it that backward() came through "
    "(torch.autograd.grad, and torch.compile inside it, leave contexts out)"
)
NO_ROWS = (
    "its layer was fed with, or gave, what is no rows of real numbers as wide as the weight, beside it on its device"
)


class Recorder(Observer):
    """Observes one parameter and hands what it sees to the entanglement layers of the matrices in it.

    Nothing is recorded unless `recording` is set, the module is in training mode, gradients are on and the parameter is
    to have one.

    Args:
        name: Name of the parameter, for messages.
        parameter: The weight.
        layers: One per matrix that is stacked in it, in their order.
        is_plain: Whether it meets its contexts in a layer that nobody has overridden.
        transposed: It is stored (inputs, outputs), as far as is known.
        turned: What its layers record if it is stored the other way round, which its first product tells; None if that
            cannot be.

    Attributes:
        recording: Whether backward passes are recorded now.
        is_late: It came in the middle of training, and records at the next step, whenever the others do.
        trouble: Why the last call could not be recorded, for messages.
    """

    def __init__(
        self,
        name: str,
        parameter: Tensor,
        layers: Sequence[EntanglementLayer],
        is_plain: bool = True,
        transposed: bool = False,
        turned: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.name, self.parameter, self.layers = name, parameter, layers
        self._shape = parameter.shape
        self.transposed, self._is_plain = transposed, is_plain
        self._outputs = parameter.numel() // (len(layers) * layers[0].inputs)
        self._turned = turned if layers[0].sharers is None else None
        self.recording = self.is_late = False
        self.trouble = self._at_rest = NEVER_CALLED if is_plain else COMPILED
        # The gradient of a sharded weight is missing between micro-batches that are not yet summed over ranks.
        self._sees_gradients = not is_sharded(parameter)

    def listens(self, module: nn.Module) -> bool:
        """Whether a call of `module` is to be recorded."""
        is_wanted = self.recording or self._turned is not None
        if not (is_wanted and torch.is_grad_enabled() and self.parameter.requires_grad):
            return False
        if torch.compiler.is_compiling():
            return module.training
        if in_transform():
            self.trouble = TRANSFORMED
            return False
        if not module.training:
            self.trouble = EVALUATES
            return False
        if self.parameter.shape != self._shape:
            self.trouble = RESHAPED
            return False
        if not self.layers[0].is_lost:
            self.trouble = PASSED_BY
        self._follow()
        if self._was_given_up():
            self.clear()
        return True

    def see(self, output: Tensor, contexts: Tensor, walk: Geometry | None, part: int) -> Tensor | None:
        """The output of one product with the weight, tapped; None where no gradient will come."""
        self._turned = None
        layer = self.layers[part]
        if not self.recording or not output.requires_grad or layer.is_lost:
            return None
        if not torch.compiler.is_compiling() and output.numel() == 0:
            return None
        if not self._fits(layer, output, contexts, walk):
            self.lose(NO_ROWS)
            return None
        return layer.tap(output, contexts, walk)

    def _fits(self, layer: EntanglementLayer, output: Tensor, contexts: Tensor, walk: Geometry | None) -> bool:
        """Whether contexts and output are rows of the widths of the weight, where statistics of them can be formed."""
        if not (_has_rows(output) and _has_rows(contexts)):
            return False
        if self._is_plain and walk is None:  # torch has compared the widths
            return True
        if not (output.is_floating_point() and contexts.is_floating_point()):
            return False
        if output.device != layer.mass_carrier.device:
            return False
        if walk is None:
            return output.shape[-1] == self._outputs and contexts.shape[-1] == layer.inputs
        features, patch = -1 - walk.dimensions, walk.kernel[0] * walk.kernel[1]
        inputs = contexts.shape[features] * patch
        return output.shape[features] == self._outputs and inputs == layer.inputs * walk.groups

    def turn(self, transposed: bool) -> bool:
        """Learns from its first product that it is stored so, before anything is known of it."""
        if self._turned is not None and transposed != self.transposed:
            inputs, self._outputs = self._outputs, self.layers[0].inputs
            self.layers = [layer.turned(inputs, self._turned) for layer in self.layers]
            self.transposed, self._turned = transposed, None
        return transposed == self.transposed

    def lose(self, why: str) -> None:
        """Part of what the weight meets cannot be seen, so that it counts as unseen in this step."""
        if not self.recording:
            return
        self.trouble = why
        for layer in self.layers:
            layer.is_lost = True

    def _was_given_up(self) -> bool:
        """Whether somebody threw the gradient away that belongs to what was recorded, as `model.zero_grad()` does."""
        return self._sees_gradients and self.parameter.grad is None and any(layer.recorded for layer in self.layers)

    def rest(self) -> None:
        """After a step that recorded: nothing has happened yet in the next one."""
        self.clear()
        self.trouble, self.is_late = self._at_rest, False

    def clear(self) -> None:
        """Forgets what was recorded for a step that was given up."""
        for layer in self.layers:
            layer.clear()

    def _follow(self) -> None:
        """Moves the layers to where the parameter is now."""
        for layer in self.layers:
            if layer.mass_carrier.device != self.parameter.device:
                layer.move(self.parameter.device)

    def __getstate__(self) -> dict[str, Any]:
        """A copied model (an average of weights, say) records nothing until an optimizer of its own says so."""
        return {**self.__dict__, "recording": False}


def _has_rows(tensor: Tensor) -> bool:
    """Whether rows of a tensor can be told: of nested ones only of jagged ones, and not by a compiler."""
    if tensor.layout is torch.strided:
        return not tensor.is_nested
    return not torch.compiler.is_compiling()

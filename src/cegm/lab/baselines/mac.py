"""MAC (arXiv 2506.08464), repaired for causal language models: gradients meet the inverse of a rank-one context before AdamW.

MAC replaces the activation factor of K-FAC by the mean activation `m`, whose damped inverse is `I - m m^T / (rho + |m|^2)`
up to a constant. For value projections the mean is weighted by attention, because a token enters the layer's output as
often as later tokens attend to it. It was published for images with stochastic gradient descent. Here the attention is
causal, and AdamW follows the map, as plain descent does not train these models.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from typing_extensions import Unpack

from cegm.assignment import Assignment
from cegm.context.taps import Hooked, Weakly, layer_input
from cegm.context.transforms import in_transform
from cegm.lab.baselines.paired import Paired, Shared

VALUE = "v_proj"
"""Name of value projections in the models of transformers that do not fuse them."""


class MAC(Paired):
    """MAC with AdamW for the matrices and `torch.optim.AdamW` for the rest.

    Attention weights are seen only when they are formed, so the model is switched to eager attention. Fused projections
    (GPT-2's) have no value rows of their own here and use the plain mean; convolutions are left to AdamW.

    Args:
        model: The model.
        lr: Learning rate of the matrices.
        betas: AdamW's betas of the matrices.
        mean_beta: Of the running mean activation, in [0, 1).
        damping: `rho` > 0, relative to the mean square of an activation, so that neither the scale of activations nor a
            mean that is nothing but noise matters.
        **shared: See `Shared`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float = 2.5e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        mean_beta: float = 0.95,
        damping: float = 1.0,
        **shared: Unpack[Shared],
    ) -> None:
        if not 0.0 <= mean_beta < 1.0 or damping <= 0.0:
            raise ValueError(f"mean_beta={mean_beta} must be in [0, 1) and damping={damping} above 0")
        super().__init__(
            model,
            torch.optim.AdamW,
            {"betas": betas},
            lr,
            **shared,
        )
        self._mean_beta, self._damping = mean_beta, damping
        choose_attention = getattr(model, "set_attn_implementation", None)
        if choose_attention is not None:
            choose_attention("eager")
        parents = {
            child: parent for parent in model.modules() for name, child in parent.named_children() if name == VALUE
        }
        self._means = {
            a.parameter: _MeanActivation(a, parents)
            for a in self.assignments
            if a.role == "matrix" and a.parameter.ndim == 2
        }

    def step_matrices(self) -> None:
        """Maps the gradients of all layers, then AdamW."""
        running = {
            parameter: self._running(parameter, activation.take())
            for parameter, activation in self._means.items()
            if parameter.grad is not None
        }
        for parameter, moments in running.items():
            steps = int(self.state[parameter].get("step", 0)) + 1
            self._means[parameter].map(moments / (1 - self._mean_beta**steps), self._damping)
        super().step_matrices()
        for parameter, moments in running.items():  # only now: torch takes a state that is not empty for its own
            self.state[parameter]["moments"] = moments

    def _running(self, parameter: Tensor, moments: Tensor) -> Tensor:
        past = self.state[parameter].get("moments", torch.zeros_like(moments))
        return past.lerp(moments, 1 - self._mean_beta)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears gradients, and with them activations of a step that was given up."""
        super().zero_grad(set_to_none)
        for activation in self._means.values():
            activation.clear()


class _Calls(Weakly):
    """A forward hook that calls a method of an activation, and goes with it."""

    def __init__(self, activation: _MeanActivation, method: str) -> None:
        super().__init__(activation)
        self._method = method

    def __call__(self, *arguments: Any) -> None:
        if self.observer is not None:
            getattr(self.observer, self._method)(*arguments)


class _MeanActivation(Hooked):
    """Sums the inputs of one layer over the micro-batches of a step, in a buffer that ranks can reduce.

    The moments are the mean activation and behind it the mean square over features and tokens, (inputs + 1,).
    """

    def __init__(self, assignment: Assignment, parents: dict[nn.Module, nn.Module]) -> None:
        super().__init__()
        self._assignment = assignment
        self._sums = torch.zeros(
            assignment.matrices()[0].shape[1] + 2, device=assignment.parameter.device
        )  # moments, then mass
        self._waiting: Tensor | None = None
        for module in assignment.modules:
            parent = parents.get(module)
            seen = _Calls(self, "see" if parent is None else "keep")
            handles = [module.register_forward_hook(seen, with_kwargs=True)]
            if parent is not None:
                attended = _Calls(self, "see_attended")
                handles.append(parent.register_forward_hook(attended, with_kwargs=True))
            self.hold(handles)

    def _records(self, module: nn.Module) -> bool:
        """Whether the call of a module is one that gives the weight a gradient."""
        trains = module.training and torch.is_grad_enabled() and self._assignment.parameter.requires_grad
        return trains and not in_transform()

    def _add(self, contexts: Tensor, weights: Tensor) -> None:
        """Adds contexts (tokens, inputs) by their weights (tokens,)."""
        square = (weights * contexts.square().mean(dim=1)).sum()
        self._sums += torch.cat([weights @ contexts, torch.stack([square, weights.sum()])])

    def see(self, module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any], output: Any) -> None:
        if self._records(module):
            contexts = layer_input(inputs, named).detach().float().flatten(0, -2)
            self._add(contexts, contexts.new_ones(len(contexts)))

    def keep(self, module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any], output: Any) -> None:
        self._waiting = layer_input(inputs, named).detach().float()  # (rows, tokens, inputs)

    def see_attended(self, module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        contexts, self._waiting = self._waiting, None
        if contexts is None or not self._records(module):
            return
        attention = output[1] if isinstance(output, tuple) else None  # (rows, heads, queries, keys)
        if attention is None:
            raise ValueError("MAC found no attention weights; load the model with attn_implementation='eager'")
        received = attention.detach().float().mean(dim=1).sum(dim=1)  # (rows, keys)
        self._add(contexts.flatten(0, 1), received.flatten())

    def take(self) -> Tensor:
        """Moments of the step over all ranks, (inputs + 1,); zero for a layer that was not called."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self._sums)
        moments = self._sums[:-1] / self._sums[-1].clamp_min(1e-30)
        self.clear()
        return moments

    def clear(self) -> None:
        """Forgets the activations since the last step."""
        self._sums.zero_()

    def map(self, moments: Tensor, damping: float) -> None:
        """Multiplies the gradient by `I - m m^T / (rho + |m|^2)`."""
        m, rho = moments[:-1], damping * moments[-1]
        gradient = self._assignment.parameter.grad
        assert gradient is not None
        rows = gradient.mT if self._assignment.transposed else gradient  # (outputs, inputs)
        scale = (rho + m.square().sum()).clamp_min(torch.finfo(torch.float32).tiny)
        rows.sub_(torch.outer(rows.float() @ m, m) / scale)

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

from cegm.baselines.paired import Paired, Shared

VALUE = "v_proj"
"""Name of value projections in the models of transformers that do not fuse them."""


class MAC(Paired):
    """MAC with AdamW for the matrices and `torch.optim.AdamW` for the rest.

    Attention weights are seen only when they are formed, so the model is switched to eager attention. Fused projections
    (GPT-2's) have no value rows of their own here and use the plain mean.

    Args:
        model: The model.
        lr: Learning rate of the matrices.
        betas: AdamW's betas of the matrices.
        mean_beta: Of the running mean activation, in [0, 1).
        damping: `rho` > 0, relative to `|m|^2 / n`, so that it does not depend on the scale of activations.
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
            a.parameter: _MeanActivation(a.modules, parents, a.parameter)
            for a in self.assignments
            if a.role == "matrix" and a.parameter.ndim == 2 and not a.transposed
        }

    def step_matrices(self) -> None:
        """Maps the gradients of all layers, then AdamW."""
        means = {
            parameter: self._running_mean(parameter, activation.take())
            for parameter, activation in self._means.items()
            if parameter.grad is not None
        }
        for parameter, mean in means.items():
            steps = int(self.state[parameter].get("step", 0)) + 1
            _map(parameter, mean / (1 - self._mean_beta**steps), self._damping)
        super().step_matrices()
        for parameter, mean in means.items():  # only now: torch takes a state that is not empty for its own
            self.state[parameter]["mean"] = mean

    def _running_mean(self, parameter: Tensor, mean: Tensor) -> Tensor:
        past = self.state[parameter].get("mean", torch.zeros_like(mean))
        return past.lerp(mean, 1 - self._mean_beta)


def _map(parameter: Tensor, m: Tensor, damping: float) -> None:
    """Multiplies the gradient (outputs, inputs) by `I - m m^T / (rho + |m|^2)`."""
    assert parameter.grad is not None
    square = m.square().sum()
    rho = damping * square / len(m)
    rows = parameter.grad.float()
    parameter.grad.sub_(torch.outer(rows @ m, m) / (rho + square).clamp_min(torch.finfo(torch.float32).tiny))


class _MeanActivation:
    """Sums the inputs of one layer over the micro-batches of a step, on a buffer that ranks can reduce."""

    def __init__(self, modules: list[nn.Module], parents: dict[nn.Module, nn.Module], parameter: Tensor) -> None:
        self._sums = torch.zeros(parameter.shape[1] + 1, device=parameter.device)  # inputs, then the mass
        self._waiting: Tensor | None = None
        for module in modules:
            parent = parents.get(module)
            module.register_forward_hook(self._add if parent is None else self._keep)
            if parent is not None:
                parent.register_forward_hook(self._add_attended)

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        if module.training and torch.is_grad_enabled():
            contexts = inputs[0].detach().float().flatten(0, -2)  # (tokens, inputs)
            self._sums += torch.cat([contexts.sum(dim=0), contexts.new_tensor([len(contexts)])])

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        self._waiting = inputs[0].detach().float()  # (rows, tokens, inputs)

    def _add_attended(self, module: nn.Module, inputs: Any, output: Any) -> None:
        contexts, self._waiting = self._waiting, None
        if contexts is None or not (module.training and torch.is_grad_enabled()):
            return
        attention = output[1] if isinstance(output, tuple) else None  # (rows, heads, queries, keys)
        if attention is None:
            raise ValueError("MAC found no attention weights; load the model with attn_implementation='eager'")
        received = attention.detach().float().mean(dim=1).sum(dim=1)  # (rows, keys)
        self._sums += torch.cat([torch.einsum("rk,rkn->n", received, contexts), received.sum()[None]])

    def take(self) -> Tensor:
        """Mean over the step and all ranks, (inputs,); zero for a layer that was not called."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self._sums)
        mean = self._sums[:-1] / self._sums[-1].clamp_min(1e-30)
        self._sums.zero_()
        return mean

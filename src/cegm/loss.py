"""`EntanglementLoss`: cross-entropy plus beta times a kernel between each token's context and its gradient (section III-C).

The gradient of a token's loss with respect to the last hidden state is known in closed form from the output head, so
the kernel is an ordinary function of hidden state and head, and one backward pass is enough.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cegm.context.taps import layer_input
from cegm.loss_options import Kernel, StopGradient, check

IGNORED = -100

CHUNK_LOGITS = 1 << 23
"""Logits that exist at a time (32 MiB in float32, and a few tensors of that size beside them): 262 tokens of 32,000 words."""

CHANGED_LOGITS = {
    "final_logit_softcapping": None,
    "logits_soft_cap": None,
    "logit_scale": 1.0,
    "logits_scaling": 1.0,
    "lm_head_multiplier": 1.0,
    "output_multiplier": 1.0,
}
"""Entries of transformers configurations by which a model changes its logits behind the head, and what leaves them alone."""


@dataclass(frozen=True)
class EntanglementLoss:
    """`L + beta E`: cross-entropy `L`, and `E`, the mean over predicted tokens of `k(h_x, g_x)`.

    `h_x` is the hidden state that enters the output head `U`, and `g_x = dL_x/dh_x = U^T (p_x - y_x)` the gradient of
    that token's own loss `L_x` (not divided by the number of tokens). Source: arXiv 2502.00048, section III-C.

    Kernels, all of them 0 or constant without gradient where `h` or `g` is zero:

    - `cosine`: `cos(h, g)`, 0 where either is zero.
    - `rbf`: `exp(-|h^ - g^|^2 / 2)` over unit vectors, which is `exp(cos(h, g) - 1)`. Hidden states are tens of times as
      long as gradients, so over the vectors themselves it would be 0, and flat, for every token.
    - `dot`: `h . g`. This is exactly `sum_v p_v z_v - z_y = L_x - H(p_x)`, `H` the entropy of the
      prediction: `L + beta E = (1 + beta) L - beta H` is a confidence penalty (arXiv 1701.06548). Below `beta = -1` it
      has no minimum, nor with a bias, whose logits are then free; both are refused.

    Tokens are taken in chunks whose logits are computed again in the backward pass, so no (tokens x vocabulary) tensor
    is kept. Half-precision inputs are computed in float32.

    Args:
        beta: Weight of `E`; positive turns contexts away from their gradients. 0 is cross-entropy, to the bit where one chunk holds all tokens.
        kernel: `cosine`, `rbf` or `dot`.
        stop_gradient: `none`; `context` (`h` inside the kernel is a constant) or `gradient` (`g` is a constant).

    Raises:
        ValueError: Unknown kernel or stop_gradient, beta that is not finite, or below -1 with `dot`.
    """

    beta: float = 0.1
    kernel: Kernel = "cosine"
    stop_gradient: StopGradient = "none"

    def __post_init__(self) -> None:
        check(self.beta, self.kernel, self.stop_gradient)

    def __call__(
        self,
        hidden: Tensor,
        head_weight: Tensor,
        labels: Tensor,
        bias: Tensor | None = None,
        count: Tensor | int | None = None,
    ) -> Tensor:
        """The loss, a scalar in float32 (float64 for float64 inputs).

        Args:
            hidden: Input of the output head, (..., hidden).
            head_weight: Output head `U`, (vocabulary, hidden).
            labels: The token that follows, already shifted, (...); -100 is ignored.
            bias: Of the head, (vocabulary).
            count: Divisor of the sum over tokens; None: the number of predicted tokens. No token gives 0.

        Raises:
            ValueError: Shapes that do not fit, or a bias with the `dot` kernel.
        """
        if hidden.shape[:-1] != labels.shape or head_weight.shape[1:] != hidden.shape[-1:]:
            raise ValueError(
                f"hidden {tuple(hidden.shape)}, head_weight {tuple(head_weight.shape)} and labels {tuple(labels.shape)} "
                "do not fit; give (..., hidden), (vocabulary, hidden) and (...), with the whole head on every process"
            )
        if bias is not None and self.kernel == "dot" and self.beta:
            raise ValueError(
                f"beta={self.beta:g} with kernel 'dot' has no minimum on a head with a bias, which could pay for any context;"
                " use kernel 'cosine' or 'rbf', or a head without bias"
            )
        hidden = hidden.to(head_weight.device)
        labels = labels.to(head_weight.device).flatten()
        predicted = (labels != IGNORED).nonzero().squeeze(1)  # (tokens)
        labels = labels[predicted]
        contexts = hidden.flatten(0, -2).index_select(0, predicted)  # (tokens, hidden)
        dtype = torch.promote_types(torch.promote_types(hidden.dtype, head_weight.dtype), torch.float32)
        head = head_weight.to(dtype)
        offset = None if bias is None else bias.to(dtype)
        size = max(1, CHUNK_LOGITS // len(head))
        # An empty tensor splits into one empty chunk, so without any token the loss is 0 and so are all gradients.
        total = torch.stack(
            [
                checkpoint(self._sum, *chunk, head, offset, use_reentrant=False, preserve_rng_state=False)
                for chunk in zip(contexts.split(size), labels.split(size), strict=True)
            ]
        ).sum()
        divisor = len(predicted) if count is None else count
        return total / torch.as_tensor(divisor, device=total.device).clamp(min=1)

    def _sum(self, context: Tensor, labels: Tensor, head: Tensor, bias: Tensor | None) -> Tensor:
        """Sum of `L_x + beta k(h_x, g_x)` over a chunk: `context` (tokens, hidden), `labels` (tokens)."""
        with torch.autocast(head.device.type, enabled=False):
            context = context.to(head.dtype)
            log_p = F.linear(context, head, bias).log_softmax(dim=-1)  # (tokens, vocabulary)
            loss = F.nll_loss(log_p, labels, reduction="sum")
            if self.beta == 0:
                return loss
            gradient = _gradient(log_p, labels, head)
            if self.stop_gradient == "context":
                context = context.detach()
            if self.stop_gradient == "gradient":
                gradient = gradient.detach()
            return loss + self.beta * _similarity(self.kernel, context, gradient).sum()

    def for_model(self, model: nn.Module) -> _ModelLoss:
        """This loss for a Hugging Face `Trainer`: `Trainer(compute_loss_func=EntanglementLoss().for_model(model))`.

        A hook on the model's output head keeps its input until the loss is computed; it goes when the returned callable
        goes. Evaluation, without gradients, gets plain cross-entropy, so that it stays comparable.

        Args:
            model: Any causal language model of transformers, also with tied weights, LoRA adapters, activation
                checkpointing or inside `DistributedDataParallel`.

        Raises:
            ValueError: No output head, a head that is not a plain linear layer, or logits that the model changes behind it.
        """
        return _ModelLoss(self, model)


def _gradient(log_p: Tensor, labels: Tensor, head: Tensor) -> Tensor:
    """`g_x = U^T (p_x - y_x)`, (tokens, hidden), from `log_p` (tokens, vocabulary).

    `p_y - 1` is written as minus the sum of the others: on a sure token the difference would be rounding alone, and the
    direction of `g` noise.
    """
    label = labels[:, None]
    residual = log_p.exp().scatter(1, label, 0.0)  # (tokens, vocabulary)
    residual = residual.scatter_(1, label, -residual.sum(dim=1, keepdim=True))
    return residual @ head


def _similarity(kernel: Kernel, context: Tensor, gradient: Tensor) -> Tensor:
    """`k(h_x, g_x)` of every token, (tokens), from `context` and `gradient`, (tokens, hidden)."""
    if kernel == "dot":
        return (context * gradient).sum(dim=-1)
    context, gradient = _unit(context), _unit(gradient)
    if kernel == "cosine":
        return (context * gradient).sum(dim=-1)
    return (-(context - gradient).square().sum(dim=-1) / 2).exp()


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length one; those too short to square become zero, without gradient."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    short = length <= torch.finfo(vectors.dtype).tiny ** 0.5
    return (vectors / length.masked_fill(short, 1.0)).masked_fill(short, 0.0)


class _HeadInput:
    """Forward hook that keeps the input of the last forward pass with gradients, until it is taken."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def __call__(self, head: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        if torch.is_grad_enabled():
            self.value = layer_input(inputs, named)

    def take(self) -> Tensor | None:
        """The input, which is then forgotten here."""
        value, self.value = self.value, None
        return value


class _ModelLoss:
    """What `EntanglementLoss.for_model` returns: `(outputs, labels, num_items_in_batch=None) -> scalar`."""

    def __init__(self, loss: EntanglementLoss, model: nn.Module) -> None:
        self._loss = loss
        self._head = _output_head(model)
        self._input = _HeadInput()
        self._checked = False
        weakref.finalize(self, self._head.register_forward_hook(self._input, with_kwargs=True).remove)

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The loss of the forward pass that gave `outputs`.

        Args:
            outputs: Of the model, with `logits` (..., tokens, vocabulary).
            labels: As transformers passes them, not shifted, (..., tokens).
            num_items_in_batch: Divisor, the predicted tokens of all micro-batches and processes; the trainer undoes the
                averaging over processes.

        Raises:
            ValueError: The forward pass went around the output head, or its logits are not those of the head.
        """
        hidden, labels = self._input.take(), labels[..., 1:]
        if not torch.is_grad_enabled():
            logits = outputs.logits[..., :-1, :].float().flatten(0, -2)  # (tokens, vocabulary)
            total = F.cross_entropy(logits, labels.flatten().to(logits.device), ignore_index=IGNORED, reduction="sum")
            count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
            return total / torch.as_tensor(count, device=total.device).clamp(min=1)
        if hidden is None:
            raise ValueError("the forward pass did not call the model's output head; use EntanglementLoss on its input")
        if not self._checked:
            self._require_own_logits(hidden.detach(), outputs.logits.detach())
        bias = self._head.bias
        return self._loss(hidden[..., :-1, :], self._head.weight, labels, bias, num_items_in_batch)

    @torch.no_grad()
    def _require_own_logits(self, hidden: Tensor, logits: Tensor) -> None:
        """Compares the last token's logits with `U h + b`, once; what a model does to them may stand in no configuration."""
        bias = None if self._head.bias is None else self._head.bias.float()
        head = self._head.weight.float()
        own = F.linear(hidden.flatten(0, -2)[-1].to(head), head, bias)  # (vocabulary)
        difference = (logits.flatten(0, -2)[-1].to(own) - own).abs().max()
        if difference > 0.05 * own.abs().max():  # bfloat16 stays below 0.02
            raise ValueError(
                f"the model's logits differ from those of its output head by {difference:.2g}; "
                "the entanglement loss needs a model that does not change them (beta=0 works)"
            )
        self._checked = True


def _output_head(model: nn.Module) -> nn.Linear:
    """The linear layer that makes the logits.

    Raises:
        ValueError: There is none, or the logits are more than its output.
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    name = type(model).__name__
    find = getattr(model, "get_output_embeddings", None)
    head = None if find is None else find()
    if head is None:
        raise ValueError(
            f"{name} has no output head; the entanglement loss needs a causal language model (beta=0 works)"
        )
    if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
        raise ValueError(
            f"the output head of {name} is a {type(head).__name__}, not a plain linear layer; "
            "the entanglement loss needs one (no adapter or quantisation on the head, or beta=0)"
        )
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for entry, harmless in CHANGED_LOGITS.items():
        value = getattr(text, entry, getattr(config, entry, None))
        if value is not None and value != harmless:
            raise ValueError(
                f"{name} changes its logits behind the head ({entry}={value}), "
                "which the entanglement loss does not know; use beta=0"
            )
    return head

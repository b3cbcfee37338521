"""A model that takes whole training steps as a run of its configuration would, without a trainer around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import build, build_loss


class Learner:
    """Model, optimizer and loss of one run. `copy.deepcopy` copies all three, and the copy goes on as the original would.

    Args:
        config: The run.
        model: Its model; it goes to the GPU if there is one.

    Attributes:
        model: In training mode.
        optimizer: The method's, over the model's weights.
        device: Where batches have to be.
    """

    def __init__(self, config: RunConfig, model: nn.Module) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).train()
        if config.gradient_checkpointing:
            cast(Any, self.model).gradient_checkpointing_enable()
        self.optimizer: Any = build(config, model)
        self._loss = build_loss(config, model)
        self._config = config

    def gradients(self, micro_batches: Sequence[Tensor], strength: float = 1.0) -> tuple[Tensor, Tensor]:
        """Forward and backward pass of a step, and its clipping.

        Args:
            micro_batches: (rows, tokens) each.
            strength: Multiplies the gradient before it is clipped.

        Returns:
            Mean loss of the micro-batches, nats per token, and the norm of the gradient before clipping; scalars.
        """
        losses = []
        for tokens in micro_batches:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._config.bf16):
                loss = self._forward(tokens)
            (strength * loss / len(micro_batches)).backward()
            losses.append(loss.detach())
        parameters = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        if self._config.max_grad_norm:
            clip_grads_with_norm_(parameters, self._config.max_grad_norm, norm)
        return torch.stack(losses).mean(), norm

    def update(self, loss: Tensor) -> None:
        """The rest of the step: the optimizer's update from these gradients.

        Args:
            loss: What `gradients` returned.
        """
        if hasattr(self.optimizer, "observe_loss"):
            self.optimizer.observe_loss(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _forward(self, tokens: Tensor) -> Tensor:
        if self._loss is None:
            loss: Tensor = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
            return loss
        return self._loss(self.model(input_ids=tokens, use_cache=False), tokens)

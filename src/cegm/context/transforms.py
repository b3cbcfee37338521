"""What runs a model in another way than forward and backward: function transforms, traces, batches of gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad


def in_transform() -> bool:
    """Whether a function transform (`torch.func`, `vmap`), a trace or forward-mode differentiation runs the model now."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._is_tracing()
        or forward_ad._current_level >= 0
    )


def is_batched(gradient: Tensor) -> bool:
    """Whether a gradient stands for several at once (`is_grads_batched`, `vmap`), of which none reaches the weight itself."""
    functorch = torch._C._functorch
    return not torch.compiler.is_compiling() and (
        functorch.is_legacy_batchedtensor(gradient) or functorch.is_batchedtensor(gradient)
    )

"""The way into anyone's Hugging Face `Trainer`: `optimizer_cls_and_kwargs=(CEGMFactory, {"lr": 3e-3})`."""

from __future__ import annotations

from typing import Any

from torch import nn

from cegm.optimizer import CEGM


class CEGMFactory:
    """Builds `CEGM` for the whole model.

    transformers 5 passes grouped parameters to an `Optimizer` class, but calls anything else as `Factory()(model,
    **kwargs)`; CEGM needs the model, because contexts are gathered in its layers.
    """

    def __call__(self, model: nn.Module, **options: Any) -> CEGM:
        """`CEGM(model, **options)`; `options` are those of `CEGM`."""
        return CEGM(model, **options)

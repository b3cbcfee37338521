"""The way into anyone's Hugging Face `Trainer`: `optimizer_cls_and_kwargs=(CEGMFactory, {"lr": 3e-3})`."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from torch import nn

from cegm.optimizer import CEGM

if TYPE_CHECKING:
    from transformers import TrainerCallback
else:
    try:
        from transformers import TrainerCallback
    except ImportError:  # nobody without transformers has a Trainer to call it
        TrainerCallback = object

logger = logging.getLogger(__name__)

USUAL_BETAS = (0.9, 0.999)
"""What `TrainingArguments` has when nobody has set its betas; CEGM's own are kept then."""


class CEGMFactory:
    """Builds `CEGM` for the whole model, with the weight decay, betas and learning rate of the trainer's arguments.

    transformers 5 passes grouped parameters to an `Optimizer` class, but calls anything else as `Factory()(model,
    **kwargs)`; CEGM needs the model, because contexts are gathered in its layers. What is given in `kwargs` wins over
    `TrainingArguments`, and a line in the log says so.
    """

    def __call__(self, model: nn.Module, **options: Any) -> CEGM:
        """`CEGM(model, **options)`; `options` are those of `CEGM`."""
        return CEGM(model, **{**_from_arguments(_arguments_of_trainer(), options), **options})


class LossCallback(TrainerCallback):  # type: ignore[misc]
    """Tells the coefficient controllers that follow the loss (`preset="paper"`, `coefficient="progress"`) what a `Trainer` logs.

    `Trainer(..., callbacks=[LossCallback()])`. Whatever the trainer calls its loss and wherever it computes it, it logs
    it as `loss`, as often as `logging_steps` says; 1 tells every step. Until the first log the coefficient stands still.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Has the optimizer wait for the first log."""
        _bare(optimizer).await_loss()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, optimizer: Any = None, **_: Any
    ) -> None:
        """Takes the loss out of what is logged, if it is there."""
        if logs is not None and "loss" in logs:
            _bare(optimizer).observe_loss(float(logs["loss"]))


def _bare(optimizer: Any) -> CEGM:
    """The optimizer inside accelerate's."""
    while not isinstance(optimizer, CEGM):
        if not hasattr(optimizer, "optimizer"):
            raise ValueError(f"LossCallback is for CEGM, and this trainer has {type(optimizer).__name__}; take it out")
        optimizer = optimizer.optimizer
    return optimizer


def _arguments_of_trainer() -> Any:
    """The arguments of the trainer that is calling a factory, None if it is somebody else.

    A trainer tells a factory nothing of its arguments, and its user has set weight decay there. The caller's own `args`
    are the only way to them.
    """
    frame = inspect.currentframe()
    caller = None if frame is None or frame.f_back is None else frame.f_back.f_back
    arguments = getattr(None if caller is None else caller.f_locals.get("self"), "args", None)
    return arguments if hasattr(arguments, "adam_beta1") and hasattr(arguments, "weight_decay") else None


def _from_arguments(arguments: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Options of `CEGM` that stand in a trainer's arguments."""
    if arguments is None:
        return {}
    betas = (arguments.adam_beta1, arguments.adam_beta2)
    found = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay}
    if betas != USUAL_BETAS:
        found["aux_betas"] = betas
    for name, value in found.items():
        if options.get(name, value) != value:
            logger.info(
                "%s=%s of optimizer_cls_and_kwargs is taken, not %s of TrainingArguments", name, options[name], value
            )
    return found

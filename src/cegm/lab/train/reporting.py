"""Trackers hear every scalar of `metrics.jsonl`, under the names of `cegm.lab.train.metric_names`; one that fails never ends a run."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from cegm.lab.records import Final, Metrics
from cegm.lab.train.metric_names import scalars

NAMES = {callback: name for name, callback in INTEGRATION_TO_CALLBACK.items()}
"""Of trackers, by their callback."""

OWN = ("on_log", "on_train_end")
"""Events of the trainer that trackers do not hear: its few numbers, and an end that comes before the last line."""


class Trackers(TrainerCallback):
    """Stands before the callbacks that transformers has for trackers.

    Args:
        trainer: Whose trackers it stands for from now on.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.listeners = [each for each in trainer.callback_handler.callbacks if type(each) in NAMES]
        for callback in self.listeners:
            trainer.remove_callback(callback)
        if self.listeners:
            trainer.add_callback(self)

    def hear(self, record: Metrics) -> None:
        """Passes a line of `metrics.jsonl` on; its last one is the end."""
        trainer = self._trainer
        state = copy.copy(trainer.state)
        state.global_step = record.steps if isinstance(record, Final) else record.step
        facts = (trainer.args, state, trainer.control)
        self.tell("on_log", *facts, model=trainer.model, logs=scalars(record))
        if isinstance(record, Final):
            self.tell("on_train_end", *facts, model=trainer.model)

    def tell(self, event: str, *facts: Any, **more: Any) -> None:
        """Calls every tracker that still hears; one that fails hears no more, which is said once."""
        for callback in [*self.listeners]:
            try:
                getattr(callback, event)(*facts, **more)
            except Exception as error:  # of whatever kind: it is somebody else's code, and often the network
                self.listeners.remove(callback)
                what = " ".join(f"{type(error).__name__}: {error}".split())
                warnings.warn(
                    f"report_to {NAMES[type(callback)]!r} failed and hears no more of this run, which goes on ({what}); "
                    "metrics.jsonl has all of it",
                    stacklevel=2,
                )


def _passing(event: str) -> Callable[..., None]:
    def pass_on(self: Trackers, *facts: Any, **more: Any) -> None:
        self.tell(event, *facts, **more)

    return pass_on


for _event in [name for name in vars(TrainerCallback) if name.startswith("on_") and name not in OWN]:
    setattr(Trackers, _event, _passing(_event))

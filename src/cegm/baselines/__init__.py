"""The peers that CEGM is compared with, and the one place where a method's name becomes an optimizer.

Every method gets the same groups (`cegm.groups`) and the same AdamW for embeddings, output head and vectors, so that a
difference comes from the update of the matrices alone; only schedule-free AdamW brings its own, being AdamW itself.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cegm.spelling import nearest

if TYPE_CHECKING:  # the names of methods are wanted where torch is not
    from torch import nn
    from torch.optim.optimizer import Optimizer

METHODS = {
    "adamw": "cegm.baselines.adamw:AdamW",
    "muon": "cegm.baselines.muon:Muon",
    "normuon": "cegm.baselines.normuon:NorMuon",
    "newton_muon": "cegm.baselines.newton_muon:NewtonMuon",
    "soap": "cegm.baselines.soap:SOAP",
    "shampoo": "cegm.baselines.shampoo:OneSidedShampoo",
    "mac": "cegm.baselines.mac:MAC",
    "schedule_free": "cegm.baselines.schedule_free:ScheduleFreeAdamW",
    "cegm": "cegm.optimizer:CEGM",
}
"""Where each method lives; it is imported when it is used, because some need a library that the others do not."""

SUBJECT = "cegm"


def ordered(methods: Iterable[str]) -> list[str]:
    """Methods in the one order in which they are judged and shown, however they were given.

    Args:
        methods: Their names.

    Returns:
        The subject first: CEGM, where it takes part. The baseline last: the first of `METHODS` that takes part, so AdamW,
        and without it Muon. The others between them by name.
    """
    names = sorted(set(methods), key=lambda name: (name != SUBJECT, name))
    rivals = [name for name in METHODS if name in names and name != SUBJECT]
    if not rivals:
        return names
    return [*(name for name in names if name != rivals[0]), rivals[0]]


@dataclass(frozen=True)
class Rates:
    """Peak learning rates of a method where none is given.

    Attributes:
        trained: Of weights that have been trained.
        adapters: Of LoRA adapters beside them.
        fresh: Of weights that begin at random.
    """

    trained: float
    adapters: float
    fresh: float = 3e-3


RATES = {
    "adamw": Rates(2e-5, 2e-4),
    "muon": Rates(5e-5, 5e-4),
    "normuon": Rates(5e-5, 5e-4),
    "newton_muon": Rates(5e-5, 5e-4),
    "soap": Rates(5e-5, 2e-4),
    "shampoo": Rates(5e-5, 5e-4),
    "mac": Rates(2e-5, 2e-4),
    "schedule_free": Rates(2e-5, 2e-4),
    "cegm": Rates(5e-5, 5e-4),
}
"""What `cegm train` and `cegm compare` begin with.

Trained models of 0.4 to 3.5 million parameters bear at least five times these rates for 60 steps before the loss of their own text
rises by .01 nats (docs/peers.md, benchmarks/trained_defaults.py). What a model bears falls with its size, hence the distance.
"""


def build_optimizer(method: str, model: nn.Module, **options: Any) -> Optimizer:
    """The optimizer of `method` for all trainable parameters of `model`.

    Args:
        method: A key of `METHODS`.
        model: The model.
        **options: Options of that method; `lr`, `aux_lr`, `aux_betas`, `weight_decay` and `aux_weight_decay` are common
            to all.

    Raises:
        ValueError: Unknown method or option; the message suggests the nearest name.
    """
    known = option_names(method)
    for name in options:
        if name not in known:
            raise ValueError(f"{method} has no option {name!r}; {nearest(name, known)}")
    return _class(method)(model, **options)


def option_names(method: str) -> list[str]:
    """Names of the options that `method` takes, `lr` included."""
    from cegm.baselines.paired import Shared

    parameters = inspect.signature(_class(method)).parameters
    common = list(Shared.__annotations__) if "shared" in parameters else []
    return [name for name in parameters if name not in ("params", "model", "shared")] + common


def _class(method: str) -> Callable[..., Optimizer]:
    if method not in METHODS:
        raise ValueError(f"method {method!r} does not exist; {nearest(method, METHODS)}")
    try:
        found: Callable[..., Optimizer] = pkgutil.resolve_name(METHODS[method])
    except ModuleNotFoundError as error:
        raise ValueError(f"{method} needs {error.name}; install it with pip install 'cegm[compare]'") from error
    return found

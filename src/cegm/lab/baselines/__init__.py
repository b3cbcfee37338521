"""The peers that CEGM is compared with: one record per method, and the one place where its name becomes an optimizer.

Adding a method is a file with its optimizer and a record in `METHODS`; everything else asks the record. Every method gets
the same groups (`cegm.assignment`) and the same AdamW for embeddings, output head and vectors, so that a difference comes from
the update of the matrices alone; only schedule-free AdamW brings its own, being AdamW itself.
"""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cegm.lab.baselines.space import Space, usual
from cegm.spelling import nearest

if TYPE_CHECKING:  # the names of methods are wanted where torch is not
    from torch import nn
    from torch.optim.optimizer import Optimizer

SUBJECT = "cegm"
REFERENCE = "adamw"
"""The method whose cost, final loss and rate outside matrices the others are held against."""

BASE = "base"
"""The arm of an ablation that all its others are changes of."""

CONSTANT = "constant_with_warmup"


class Rates(NamedTuple):
    """Peak learning rates of a method where none is given.

    Trained models of 0.4 to 3.5 million parameters bear at least five times these rates for 60 steps before the loss of
    their own text rises by .01 nats (docs/peers.md, benchmarks/trained_defaults.py). What a model bears falls with its
    size, hence the distance.

    Attributes:
        trained: Of weights that have been trained.
        adapters: Of LoRA adapters beside them.
        fresh: Of weights that begin at random.
    """

    trained: float
    adapters: float
    fresh: float = 3e-3


class Look(NamedTuple):
    """How a method is drawn everywhere, told apart in grey prints, too."""

    colour: str
    dash: tuple[int, ...]
    shape: str


@dataclass(frozen=True)
class Method:
    """All that is said of a method.

    Attributes:
        title: Its name as people write it.
        home: Module and name of its optimizer; it is imported when it is used, because some need a library that the others
            do not.
        rates: What `cegm train` and `cegm compare` begin with.
        space: What `cegm tune` searches where no file says otherwise.
        look: Colour (Okabe-Ito, a brown and a grey), dashes and shape.
        momentum: Option that keeps its momentum.
        decay: Option that holds weights back, which a search sets where others have their weight decay.
        retains: What it keeps by of text that the model knows: a context card, a Fisher diagonal, or nothing.
        schedule: Of its learning rates where none is given.
        options: Those that CEGM has not, by name: type and meaning.
        planned: Whether its state and work follow from the shapes of the weights alone, so that `cegm plan` knows them.
        without_context: What it shows of CEGM without contexts, as the end of a sentence; empty for nothing. Of several in
            `METHODS` the last is the closest.
    """

    title: str
    home: str
    rates: Rates
    space: Space
    look: Look
    momentum: Literal["betas", "momentum", "entanglement"] = "betas"
    decay: str = "weight_decay"
    retains: Literal["", "card", "fisher"] = ""
    schedule: str = "cosine"
    options: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    planned: bool = False
    without_context: str = ""


ADAM, POLAR, FAST = usual((0.001, 0.01), 0.003, 0.1), usual((0.003, 0.03), 0.01, 0.05), Rates(5e-5, 5e-4)
BETAS = {"betas": (tuple[float, float], "betas of the matrices")}
PRECONDITIONED = {**BETAS, "precondition_frequency": (int, "steps between two new preconditioners")}

METHODS = {
    "adamw": Method(
        "AdamW",
        "cegm.lab.baselines.adamw:AdamW",
        Rates(2e-5, 2e-4),
        ADAM,
        Look("#0072B2", (2, 2), "square"),
        options=BETAS,
        planned=True,
    ),
    "muon": Method(
        "Muon",
        "cegm.lab.baselines.muon:Muon",
        FAST,
        POLAR,
        Look("#009E73", (8, 3), "triangle-up"),
        momentum="momentum",
        options={"momentum": (float, "momentum")},
        planned=True,
        without_context="which has neither contexts nor row moments",
    ),
    "normuon": Method(
        "NorMuon",
        "cegm.lab.baselines.normuon:NorMuon",
        FAST,
        POLAR,
        Look("#CC79A7", (8, 3, 2, 3), "diamond"),
        momentum="entanglement",
        planned=True,
        without_context="which is CEGM without contexts",
    ),
    "newton_muon": Method(
        "Newton-Muon",
        "cegm.lab.baselines.newton_muon:NewtonMuon",
        FAST,
        POLAR,
        Look("#E69F00", (5, 5), "cross"),
        momentum="entanglement",
        planned=True,
    ),
    "soap": Method(
        "SOAP",
        "cegm.lab.baselines.soap:SOAP",
        Rates(5e-5, 2e-4),
        usual((0.001, 0.01), 0.003, 0.05),
        Look("#56B4E9", (1, 3), "triangle-down"),
        options=PRECONDITIONED,
    ),
    "shampoo": Method(
        "Shampoo",
        "cegm.lab.baselines.shampoo:OneSidedShampoo",
        FAST,
        usual((0.01, 0.2), 0.05, 0.05),  # its steps are shorter where gradients are noisy
        Look("#000000", (12, 4), "triangle-left"),
        options=PRECONDITIONED,
    ),
    "mac": Method(
        "MAC",
        "cegm.lab.baselines.mac:MAC",
        Rates(2e-5, 2e-4),
        ADAM,
        Look("#8C6D46", (4, 2, 1, 2), "triangle-right"),
        options={**BETAS, "mean_beta": (float, "how much of the mean activation is kept per step")},
    ),
    "schedule_free": Method(
        "Schedule-free",
        "cegm.lab.baselines.schedule_free:ScheduleFreeAdamW",
        Rates(2e-5, 2e-4),
        usual((0.001, 0.01), 0.003, 0.1, lr_scheduler_type=CONSTANT),
        Look("#7F7F7F", (10, 2, 2, 2), "wedge"),
        schedule=CONSTANT,
        options=BETAS,
    ),
    "l2_sp": Method(
        "L2-SP",
        "cegm.lab.baselines.l2_sp:L2SP",
        Rates(2e-5, 2e-4),
        usual((0.001, 0.01), 0.003, 0.1, (1.0, 300.0), 10.0, weight_decay=0.0),
        Look("#332288", (6, 2), "triangle"),
        decay="pull",
        options={**BETAS, "pull": (float, "pull to where training began, decoupled and times lr")},
    ),
    "ewc": Method(
        "EWC",
        "cegm.lab.baselines.ewc:EWC",
        Rates(2e-5, 2e-4),
        usual((0.001, 0.01), 0.003, 0.1, (1.0, 1000.0), 30.0, weight_decay=0.0),
        Look("#882255", (3, 3), "arrow"),
        decay="penalty",
        retains="fisher",
        options={
            **BETAS,
            "penalty": (float, "weight of what the model says differently about known text, in the loss"),
        },
    ),
    "cegm": Method(
        "CEGM",
        "cegm.optimizer:CEGM",
        FAST,
        POLAR,
        Look("#D55E00", (1, 0), "circle"),
        momentum="entanglement",
        retains="card",
        planned=True,
    ),
}
"""Every method by name. The first that takes part in a comparison is its baseline."""


def ordered(arms: Iterable[str]) -> list[str]:
    """Arms in the one order in which they are judged and shown.

    Args:
        arms: Names of methods; or those of an ablation, `BASE` and its changes.

    Returns:
        Methods, however they were given: the subject first, which is CEGM where it takes part; the baseline last, the first
        of `METHODS` that takes part, so AdamW, and without it Muon; the others between them by name. Changes as they were
        given, and their base last.
    """
    given = list(dict.fromkeys(arms))
    if BASE in given:
        return [*(name for name in given if name != BASE), BASE]
    names = sorted(given, key=lambda name: (name != SUBJECT, name))
    rivals = [name for name in METHODS if name in names and name != SUBJECT]
    if not rivals:
        return names
    return [*(name for name in names if name != rivals[0]), rivals[0]]


def own_options() -> dict[str, tuple[Any, str]]:
    """Options of methods that CEGM has not, by name: type, and meaning with the methods that take it."""
    takers: dict[str, list[str]] = {}
    found: dict[str, tuple[Any, str]] = {}
    for name, method in METHODS.items():
        for option, record in method.options.items():
            takers.setdefault(option, []).append(name)
            found[option] = record
    return {name: (kind, f"{meaning}, of {', '.join(takers[name])}") for name, (kind, meaning) in found.items()}


def require_method(name: str) -> Method:
    """The record of a method.

    Raises:
        ValueError: There is none of that name; the message suggests the nearest.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} does not exist; {nearest(name, METHODS)}")
    return METHODS[name]


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
    return _builder(method)(model, **options)


def option_names(method: str) -> list[str]:
    """Names of the options that `method` takes, `lr` included."""
    from cegm.lab.baselines.paired import Shared

    parameters = inspect.signature(_builder(method)).parameters
    common = list(Shared.__annotations__) if "shared" in parameters else []
    return [name for name in parameters if name not in ("params", "model", "shared")] + common


def _builder(method: str) -> Callable[..., Optimizer]:
    home = require_method(method).home
    try:
        builder: Callable[..., Optimizer] = pkgutil.resolve_name(home)
    except ModuleNotFoundError as error:
        raise ValueError(f"{method} needs {error.name}; install it with pip install 'cegm[compare]'") from error
    return builder

"""The options of `CEGM`, each of them said once: type, default, range, choices, meaning, and what presets make of it.

Keyword arguments, checks, presets, `cegm train --help`, names in YAML and the table of docs/method.md come from
`OptionValues`. No torch here: the command line reads this file to print its help.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from cegm.ranges import Option, check_value
from cegm.spelling import nearest

if typing.TYPE_CHECKING:
    from typing_extensions import TypedDict
else:
    from typing import TypedDict

CARD_SHARE = 0.25
"""Of the directions of a layer, how many a context card keeps apart."""

Preset = Literal["recommended", "paper", "lite", "finetune"]
MomentumKernel = Literal["ema", "two", "log"]
Scores = Literal["uniform", "attention", "gradient", "alignment", "random", "shuffled"]
Hierarchy = Literal["layer", "block", "model"]
Normalize = Literal["polar", "product", "spectral", "frobenius", "adam", "none"]
LayerScale = Literal["match_adamw", "spectral", "none"]
Coefficient = Literal["constant", "progress", "plateau", "cosine", "hypergradient"]
Precision = Literal["auto", "bfloat16", "float32"]


class OptionValues(TypedDict, total=False):
    """Keyword arguments of `CEGM`; one that is left out or None is the preset's."""

    weight_decay: Annotated[
        float, Option(0.1, "decoupled weight decay of matrices, times lr", 0, presets={"paper": 0.0})
    ]
    cautious: Annotated[bool, Option(False, "decay a weight only where the step shrinks it too (arXiv 2510.12402)")]
    entanglement: Annotated[
        float,
        Option(
            0.1,
            "l of line 7, the weight of the newest gradient; Muon's momentum .95 is .05",
            0,
            1,
            above=True,
            hint="Muon's momentum 0.95 is entanglement=0.05",
        ),
    ]
    nesterov: Annotated[
        bool,
        Option(
            True,
            "look ahead along the momentum: l G + (1 - l) G_t for G_t",
            presets={"paper": False, "finetune": False},
        ),
    ]
    momentum_kernel: Annotated[
        MomentumKernel,
        Option(
            "ema", "of line 7: a running mean, two of other ages, or four whose mean age falls over coefficient_period"
        ),
    ]
    scores: Annotated[Scores, Option("uniform", "context scores f of line 8")]
    exclude_sink: Annotated[bool, Option(False, "give the first position of each row no weight in contexts")]
    hierarchy: Annotated[
        Hierarchy, Option("layer", "who shares scores: each layer, the layers of a block or of the model")
    ]
    heads: Annotated[
        int | None,
        Option(
            None,
            "blocks a side is split into: a divisor, one per feature at most; None: as wide as 4 bytes per weight allow",
            1,
            presets={"paper": 1, "lite": 32},
        ),
    ]
    recurrence: Annotated[
        float,
        Option(
            0.0,
            "r of line 8, how much of the past context is kept per step",
            0,
            1,
            below=True,
            hint="use a value below 1, such as 0.95: at 1 no context would come in",
        ),
    ]
    refresh_every: Annotated[
        int, Option(25, "steps between two looks at the contexts", 1, presets={"paper": 1, "lite": 50})
    ]
    power: Annotated[
        float, Option(0.0, "p of the context map over the inputs; 0 is off, +1 the paper's", presets={"paper": 1.0})
    ]
    gradient_power: Annotated[
        float,
        Option(
            -1.0, "q of the context map over the output gradients; 0 is off", presets={"paper": 0.0, "finetune": 0.0}
        ),
    ]
    damping: Annotated[
        float, Option(0.1, "e of (S/s + e I)^p, relative to the mean eigenvalue", 0, presets={"paper": 0.0})
    ]
    map_first: Annotated[bool, Option(False, "map each gradient before it enters the momentum: line 9 before line 7")]
    flow_time: Annotated[
        float, Option(0.0, "Dt of the flow dG/dt = G (g Phi - d I) in place of the product with Phi; 0 is off", 0)
    ]
    flow_gain: Annotated[float, Option(0.09, "g of the flow, how strongly the context feeds it", 0)]
    flow_decay: Annotated[float, Option(1.0, "d of the flow, how fast it fades; refused where g rho(Phi) >= d", 0)]
    normalize: Annotated[
        Normalize,
        Option(
            "polar",
            "line 10; product is polar, of LoRA's factors so that only their product counts",
            presets={"paper": "spectral", "finetune": "adam"},
        ),
    ]
    row_moment: Annotated[
        bool,
        Option(
            True,
            "divide output rows by their running root mean square (arXiv 2510.05491)",
            presets={"paper": False, "finetune": False},
        ),
    ]
    retain_power: Annotated[
        float, Option(1.0, "r of the map S^-r over home contexts after line 10, once a context card is given", 0)
    ]
    retain_gradient_power: Annotated[float, Option(0.0, "the same over home demands, of which the card has to know", 0)]
    retain_damping: Annotated[
        float, Option(0.01, "e of (S/s + e I)^-r over home contexts, relative to the mean eigenvalue", 0, above=True)
    ]
    retain_pull: Annotated[
        float,
        Option(
            0.0,
            "k of the pull k (W - W0) S/s to where training began, over home contexts, times lr as weight decay; keeps W0",
            0,
        ),
    ]
    layer_scale: Annotated[
        LayerScale,
        Option("match_adamw", ".2 sqrt(max(m, n)), sqrt(max(1, m/n)) or 1 times lr", presets={"paper": "none"}),
    ]
    coefficient: Annotated[
        Coefficient, Option("constant", "line 12; progress and plateau follow the loss", presets={"paper": "progress"})
    ]
    coefficient_step: Annotated[float, Option(0.01, "Dl of line 12", 0, 1)]
    coefficient_range: Annotated[
        tuple[float, float], Option((0.02, 0.2), "bounds of l; cosine begins at the upper one", 0, 1, above=True)
    ]
    coefficient_period: Annotated[
        int,
        Option(
            1000,
            "steps in which cosine falls from the upper bound to the lower, and momentum_kernel='log' to its last age",
            1,
        ),
    ]
    precision: Annotated[Precision, Option("auto", "of the polar iteration; auto is bfloat16 where that is fast")]
    aux_lr: Annotated[float | None, Option(None, "learning rate of embeddings, head and vectors; None: lr", 0)]
    aux_betas: Annotated[
        tuple[float, float],
        Option(
            (0.9, 0.95),
            "AdamW betas of these; the second is the decay of row moments and of Adam's direction, too",
            0,
            1,
            below=True,
            presets={"finetune": (0.9, 0.999)},
        ),
    ]
    aux_weight_decay: Annotated[
        float | None, Option(None, "weight decay of embeddings and head (vectors have none); None: weight_decay", 0)
    ]
    eps: Annotated[float, Option(1e-7, "smallest norm that is divided by", 0, 1)]


@functools.cache
def _declared() -> dict[str, Option]:
    hints = typing.get_type_hints(OptionValues, include_extras=True)
    parts = {name: get_args(hint) for name, hint in hints.items()}
    return {name: Option(**{**vars(record), "kind": kind}) for name, (kind, record) in parts.items()}


OPTIONS: Mapping[str, Option] = _declared()
"""By name, in the order of Algorithm 1."""

RECOMMENDED: dict[str, Any] = {name: option.default for name, option in OPTIONS.items()}

PRESETS: dict[str, dict[str, Any]] = {
    preset: {name: option.presets[preset] for name, option in OPTIONS.items() if preset in option.presets}
    for preset in get_args(Preset)
}
"""Where each preset differs from `recommended`: `paper` is the letter of Algorithm 1, `lite` keeps next to nothing beside the momentum,
`finetune` has Adam's direction for models that are trained already, so that with a context card it costs what AdamW costs."""


def named(function: Any) -> Any:
    """Shows the options in the signature of a function that takes them as `**given`."""
    own = inspect.signature(function)
    parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for name, option in OPTIONS.items():
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option.kind))
    function.__signature__ = own.replace(parameters=parameters)
    return function


def resolve(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options: those given, then the preset's, then the recommended ones.

    Raises:
        TypeError: An option that does not exist.
        ValueError: Unknown preset, or a value outside its range; the message names the value and the remedy.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} does not exist; {nearest(preset, PRESETS)}")
    for name in given:
        if name != "lr" and name not in OPTIONS:
            raise TypeError(f"CEGM has no option {name!r}; {nearest(name, OPTIONS)}")
    explicit = {name: value for name, value in given.items() if value is not None}
    options = {**RECOMMENDED, **PRESETS[preset], **explicit}
    check(options)
    return options


def check(options: Mapping[str, Any]) -> None:
    """Raises ValueError, in one line, for a value that cannot work."""
    for name in ("lr", "aux_lr"):
        numbers = getattr(options.get(name), "numel", lambda: 1)()
        if numbers != 1:
            raise ValueError(f"Tensor lr must be 1-element, but {name} has {numbers}; give one rate")
    check_value("lr", options.get("lr"), Option(None, "", 0, kind=float))
    for name, option in OPTIONS.items():
        check_value(name, options[name], option)
    _check_together(options)


def _check_together(options: Mapping[str, Any]) -> None:
    low, high = options["coefficient_range"]
    if low > high:
        raise ValueError(f"coefficient_range={(low, high)} must satisfy low <= high")
    for name in ("power", "gradient_power"):
        power = options[name]
        if options["damping"] == 0.0 and (power < 0 or power != int(power)):
            raise ValueError(
                f"{name}={power} with damping=0 inverts what no context has shown; use damping above 0, such as 0.1"
            )
    if options["normalize"] == "adam" and (options["power"] or options["gradient_power"]):
        raise ValueError(
            "normalize='adam' keeps moments of the raw gradient, whose size a map over contexts changes; set power=0 and"
            " gradient_power=0, as preset='finetune' does"
        )
    if options["normalize"] == "adam" and options["momentum_kernel"] != "ema":
        raise ValueError(
            f"momentum_kernel={options['momentum_kernel']!r} has no bias correction, which normalize='adam' wants; set "
            "momentum_kernel='ema'"
        )
    if options["normalize"] == "product":
        entrywise = {"cautious": (True,), "scores": get_args(Scores)[1:], "coefficient": ("hypergradient",)}
        for name in (name for name, values in entrywise.items() if options[name] in values):
            raise ValueError(
                f"{name}={options[name]!r} depends on how a product is factored, which normalize='product' is free of; set "
                f"{name}={RECOMMENDED[name]!r}"
            )
    if options["flow_time"] and not (options["power"] or options["gradient_power"]):
        raise ValueError(
            f"flow_time={options['flow_time']:g} has no map to flow through; set power or gradient_power, or flow_time=0"
        )

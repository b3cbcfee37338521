"""`RunConfig`: everything that decides one run, where it may come from (YAML file, command line), and what cannot work.

Names are those of Hugging Face and TRL. No heavy import here: the command line reads this file to print its help.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cegm.lab import strict
from cegm.lab.baselines import METHODS, REFERENCE, own_options, require_method
from cegm.lab.train import trackers
from cegm.lab.train.guard import ON_NONFINITE
from cegm.loss_options import check as check_loss_options
from cegm.options import OPTIONS
from cegm.spelling import nearest

FRESH_MODELS = ("tiny", "small", "reader")
WORLD = "world"
DEFAULT_STEPS = 300
SHARDINGS = ("ddp", "fsdp")

LARGEST = 2**63 - 1
"""Of a whole number: torch counts in 64 bits."""

LARGEST_SEED = 2**32 - 1
"""NumPy takes no larger one."""

MODEL_FOLDERS = ("model_name_or_path", "output_dir")
"""Options whose folders are opened by code that takes every name for UTF-8."""

OWN = ("weight_decay", "aux_lr")
"""Options of the optimizer that are fields of a run."""

OPTIMIZER_OPTIONS: dict[str, tuple[Any, str]] = {
    "preset": (str, "options of CEGM to start from: recommended, paper or lite"),
    **{name: (option.plain, option.help) for name, option in OPTIONS.items() if name not in OWN},
    **own_options(),
}
"""Options that go to the optimizer as they are: name, type, meaning. Which of them a method knows, the method decides."""


def option(default: Any, text: str) -> Any:
    """A configuration field: its default and the help text of its flag."""
    return field(default=default, metadata={"help": text})


@dataclass
class RunConfig:
    """One run. Every field is a flag of `cegm train` and a name in `--config run.yaml`.

    Raises:
        ValueError: From `validate` (called on construction), in one line that names the value and the remedy.
    """

    model_name_or_path: str = option(
        "tiny",
        "local folder, GGUF file, hub name or smollm2 (docs/finetuning.md), or a fresh model: tiny, small, reader",
    )
    data: str = option(
        WORLD, "world (generated), a .jsonl, .txt or .md file, a folder of .txt and .md, or a hub data set"
    )
    method: str = option("cegm", f"optimizer: {', '.join(METHODS)}")
    output_dir: str = option("runs/cegm", "run folder; must not hold a run yet unless it is resumed")
    seed: int = option(0, "decides initial weights, data order and the generated text, whatever the method")
    max_length: int = option(256, "tokens per row")
    per_device_train_batch_size: int = option(8, "rows per device and micro-batch")
    gradient_accumulation_steps: int = option(1, "micro-batches per step")
    max_steps: int | None = option(
        None, f"optimizer steps; wins over num_train_epochs ({DEFAULT_STEPS} if neither is given)"
    )
    num_train_epochs: float | None = option(None, "passes over the data")
    learning_rate: float = option(
        None, "peak learning rate of the matrices (default: the method's, which is far lower for trained weights)"
    )
    aux_lr: float | None = option(
        None,
        "peak learning rate of embeddings, head and vectors (default: learning_rate, or adamw's for trained weights)",
    )
    weight_decay: float = option(None, "decoupled weight decay (default: 0.1; 0 for trained weights)")
    max_grad_norm: float = option(1.0, "norm that raw gradients together are clipped to; 0 switches clipping off")
    on_nonfinite: str = option("stop", "when loss or gradient is not finite: stop, or skip a few such steps")
    beta: float = option(0.0, "weight of the entanglement loss; the logged training loss is then the total; 0 is off")
    kernel: str = option("cosine", "of the entanglement loss, between context and gradient: cosine, rbf or dot")
    stop_gradient: str = option("none", "side of that kernel held constant: none, context or gradient")
    warmup_steps: float = option(
        None, "steps of warm-up, or below 1 the fraction of all steps (default: 0.05; 10 steps for trained weights)"
    )
    lr_scheduler_type: str = option(
        None,
        "schedule of both learning rates: linear, constant, ... (default: cosine; schedule_free wants constant_with_warmup)",
    )
    bf16: bool = option(False, "bfloat16 autocast")
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass to save memory")
    sharding: str = option(
        "ddp", "of many processes, ddp: each holds the whole model; fsdp: every weight is spread over all"
    )
    lora_r: int = option(0, "rank of LoRA adapters; 0 trains all weights")
    lora_alpha: int = option(16, "scale of LoRA adapters")
    lora_target_modules: str = option("all-linear", "modules that get adapters, comma-separated")
    trust_remote_code: bool = option(False, "run code that a hub model brings along")
    validation_data: str | None = option(None, "held-out text in its own file (default: a part of data)")
    validation_fraction: float = option(0.05, "part of data that is held out for validation, by document")
    eval_steps: int = option(50, "steps between validations; 0 validates at the start and the end only")
    eval_rows: int = option(64, "rows of max_length tokens in every validation")
    logging_steps: int = option(10, "steps between lines of metrics.jsonl; 0 writes none")
    save_steps: int = option(0, "steps between checkpoints; 0 keeps none")
    save_total_limit: int = option(0, "newest checkpoints that are kept, at least 2; 0 keeps all")
    resume_from_checkpoint: str | None = option(
        None, "checkpoint folder to go on from, or 'latest' for the newest whole one in output_dir"
    )
    resume_without_optimizer: bool = option(False, "resume also when the optimizer's state is lost; it starts afresh")
    report_to: str = option(
        trackers.NONE,
        "trackers that hear of the metrics too, comma-separated: none, wandb, tensorboard, mlflow, trackio, ... or all",
    )
    threads: int = option(0, "torch threads; 0 leaves torch's choice")
    progress: bool = option(True, "show a progress bar when the terminal can")
    dry_run: bool = option(False, "print configuration, groups, tokens, time and memory; train nothing, write nothing")
    optimizer_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_method(self.method)
        for name, value in self._defaults().items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        self.validate()

    def _defaults(self) -> dict[str, Any]:
        """What is taken where nothing is given: weights that were trained must not lose what they know."""
        rates = METHODS[self.method].rates
        schedule = {"lr_scheduler_type": METHODS[self.method].schedule}
        if self.is_fresh:
            return {"learning_rate": rates.fresh, "weight_decay": 0.1, "warmup_steps": 0.05, **schedule}
        # A rate that was given holds for all weights, as it does for fresh ones.
        aux: dict[str, Any] = {"aux_lr": METHODS[REFERENCE].rates.trained} if self.learning_rate is None else {}
        rate = rates.adapters if self.lora_r else rates.trained
        return {**aux, "learning_rate": rate, "weight_decay": 0.0, "warmup_steps": 10.0, **schedule}

    @property
    def pace(self) -> str:
        """How fast the run learns, in words."""
        aux = "" if self.aux_lr in (None, self.learning_rate) else f" ({self.aux_lr:g} outside matrices)"
        warmup = f"{self.warmup_steps:g} steps" if self.warmup_steps >= 1 else f"{self.warmup_steps:.0%} of the steps"
        return (
            f"{self.method} from {'random' if self.is_fresh else 'trained'} weights: learning rate {self.learning_rate:g}{aux}, "
            f"{self.lr_scheduler_type} after a warm-up of {warmup}, weight decay {self.weight_decay:g}"
        )

    @property
    def is_fresh(self) -> bool:
        """Whether the model starts from random weights of a named configuration."""
        return self.model_name_or_path in FRESH_MODELS

    @property
    def steps(self) -> int | None:
        """Optimizer steps, or None when `num_train_epochs` decides."""
        return DEFAULT_STEPS if self.max_steps is None and self.num_train_epochs is None else self.max_steps

    def validate(self) -> None:
        """Checks every value; see the class for what it raises."""
        _check_choice("on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        usual = METHODS[self.method].schedule
        if usual.startswith("constant") and not self.lr_scheduler_type.startswith("constant"):
            raise ValueError(
                f"lr_scheduler_type={self.lr_scheduler_type!r}: {self.method} averages steps instead; use {usual}"
            )
        _check_choice("sharding", self.sharding, SHARDINGS)
        if self.sharding == "fsdp" and (self.lora_r or self.beta):
            raise ValueError(
                "sharding=fsdp goes with neither lora_r nor beta, which need whole weights; use sharding=ddp"
            )
        check_loss_options(self.beta, self.kernel, self.stop_gradient)
        trackers.listed(self.report_to)
        for name in ("max_length", "per_device_train_batch_size", "gradient_accumulation_steps", "eval_rows"):
            _check_at_least(name, getattr(self, name), 2 if name == "max_length" else 1)
        for name in ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps", "lora_r", "eval_steps"):
            _check_at_least(name, getattr(self, name), 0)
        for name in ("logging_steps", "save_steps", "threads", "seed"):
            _check_at_least(name, getattr(self, name), 0)
        if self.seed > LARGEST_SEED:
            raise ValueError(f"seed={self.seed} must be at most {LARGEST_SEED}")
        if self.aux_lr is not None:
            _check_at_least("aux_lr", self.aux_lr, 0)
        if self.max_steps is not None:
            _check_at_least("max_steps", self.max_steps, 1)
        if self.num_train_epochs is not None and not self.num_train_epochs > 0:
            raise ValueError(f"num_train_epochs={self.num_train_epochs} must be above 0")
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(f"validation_fraction={self.validation_fraction} must lie between 0 and 1, such as 0.05")
        if self.save_total_limit < 0 or self.save_total_limit == 1:
            raise ValueError(
                f"save_total_limit={self.save_total_limit} must be 0 or at least 2, so that a damaged checkpoint has one before it"
            )
        if self.lora_r and self.is_fresh:
            raise ValueError(
                f"lora_r={self.lora_r} wants trained weights under its adapters, and {self.model_name_or_path!r} begins at random; "
                "give a trained model, or leave lora_r out"
            )
        if self.data == WORLD and self.steps is None:
            raise ValueError("data 'world' has no end, so num_train_epochs means nothing; give max_steps")
        for name in self.optimizer_options:
            _check_choice("optimizer option", name, tuple(OPTIMIZER_OPTIONS))

    def to_dict(self) -> dict[str, Any]:
        """Every field, as plain values that YAML can hold."""
        plain = dataclasses.asdict(self)
        options = plain["optimizer_options"]
        plain["optimizer_options"] = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
        return plain


def field_types() -> dict[str, Any]:
    """Type of every field of `RunConfig` except `optimizer_options`, by name."""
    hints = typing.get_type_hints(RunConfig)
    return {f.name: hints[f.name] for f in dataclasses.fields(RunConfig) if f.name != "optimizer_options"}


def from_mapping(values: Mapping[str, Any], source: str) -> RunConfig:
    """A configuration from names and values (text or already typed).

    Args:
        values: Names of fields or of optimizer options, or `optimizer_options` with a mapping of the latter.
        source: Where they come from, for error messages.

    Raises:
        ValueError: Unknown name (the nearest one is suggested), or a value of the wrong type.
    """
    types_by_name = field_types()
    fields: dict[str, Any] = {}
    options: dict[str, Any] = {}
    nested = values.get("optimizer_options") or {}
    if not isinstance(nested, Mapping):
        raise ValueError(f"{source}: optimizer_options must hold names and values, not {nested!r}")
    flat = {name: value for name, value in values.items() if name != "optimizer_options"}
    for name in nested:
        if name not in OPTIMIZER_OPTIONS:
            raise ValueError(
                f"{source}: unknown optimizer option {str(name)!r}; {nearest(str(name), OPTIMIZER_OPTIONS)}"
            )
    for name, value in [*nested.items(), *flat.items()]:
        if name in types_by_name:
            fields[name] = convert(name, value, types_by_name[name])
        elif name in OPTIMIZER_OPTIONS:
            options[name] = convert(name, value, OPTIMIZER_OPTIONS[name][0])
        else:
            raise ValueError(f"{source}: unknown option {str(name)!r}; {nearest_option(str(name))}")
    return RunConfig(**fields, optimizer_options=options)


def read_yaml(path: str) -> dict[str, Any]:
    """Names and values of a YAML file.

    Raises:
        ValueError: Missing file, broken YAML, or no mapping at its top.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"config file {path} does not exist")
    values = strict.yaml_value(strict.read_text(file), path)
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold 'name: value' lines, such as 'learning_rate: 0.003'")
    return values


def nearest_option(name: str) -> str:
    """`did you mean 'x'?` for the option of a run most like `name`, or where to look."""
    suggestion = nearest(name, [*field_types(), *OPTIMIZER_OPTIONS, "config"])
    return suggestion if suggestion.startswith("did") else "see 'cegm train --help'"


def convert(name: str, value: Any, kind: Any) -> Any:
    """`value` (text from a flag, or a YAML value) as `kind`; None stays None where the field allows it."""
    if isinstance(kind, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    try:
        converted = _convert(value, kind)
    except (KeyError, TypeError, ValueError, OverflowError):
        expected = "two numbers, such as 0.9,0.95" if typing.get_origin(kind) is tuple else kind.__name__
        raise ValueError(f"{name}={value!r} is not of type {expected}") from None
    if name in MODEL_FOLDERS and os.fsencode(converted) != converted.encode("utf-8", "replace"):
        raise ValueError(
            f"{name}={value!r} is not UTF-8, as tokenizers and weights need it; give another name, or set a UTF-8 locale such as LC_ALL=C.UTF-8"
        )
    return converted


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _convert(value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else list(value)
        if len(parts) != 2:
            raise ValueError
        return float(parts[0]), float(parts[1])
    if kind is bool:
        if isinstance(value, bool):
            return value
        return _BOOLEANS[str(value).lower()]
    if isinstance(value, (bool, dict)) or value is None:
        raise TypeError
    if kind is str:
        return ",".join(_convert(part, str) for part in value) if isinstance(value, list) else str(value)
    return _whole(value) if kind is int else _finite(value)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole(value: Any) -> int:
    """Exactly, where a float would round; `3e2` is 300."""
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            value = _finite(value)
    number = int(value)
    if number != value or abs(number) > LARGEST:
        raise ValueError
    return number


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} {value!r} does not exist; {nearest(value, choices)}")


def _check_at_least(name: str, value: float, low: float) -> None:
    if not value >= low or not math.isfinite(value):
        raise ValueError(f"{name}={value} must be at least {low}")

"""`RunConfig`: everything that decides one run, where it may come from (YAML file, command line), and what cannot work.

Names are those of Hugging Face and TRL. No heavy import here: the command line reads this file to print its help.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cegm.lab.baselines import METHODS, REFERENCE, SUBJECT, own_options, require_method
from cegm.lab.declarations import LARGEST_SEED, Declared, convert, declared, option, split
from cegm.lab.train import trackers
from cegm.loss_options import check as check_loss_options
from cegm.options import OPTIONS, Preset
from cegm.ranges import Option
from cegm.spelling import nearest

OnNonFinite = Literal["stop", "skip"]
Sharding = Literal["ddp", "fsdp"]
LoraInit = Literal["random", "home_null"]

FRESH_MODELS = ("tiny", "small", "reader")
WORLD = "world"
HOME_NULL = "home_null"
SAID = ("operator", "data_source", "data_licence")
"""What somebody says of a run for its records; it changes nothing that is trained."""

OWN_TEXT = "own"
"""What `retain` calls text that the model writes itself."""

DEFAULT_STEPS = 300

OWN = ("weight_decay", "aux_lr")
"""Options of the optimizer that are fields of a run."""

OPTIMIZER_OPTIONS: dict[str, Option] = {
    "preset": Option(None, "options of CEGM to start from", kind=Preset),
    **{name: each for name, each in OPTIONS.items() if name not in OWN},
    **{name: Option(None, meaning, kind=kind) for name, (kind, meaning) in own_options().items()},
}
"""Options that go to the optimizer as they are. Which of them a method knows, the method decides."""


@dataclass
class RunConfig(Declared):
    """One run. Every field is a flag of `cegm train` and a name in `--config run.yaml`.

    Raises:
        ValueError: For what cannot work, in one line that names the value and the remedy.
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
    seed: int = option(
        0, "decides initial weights, data order and the generated text, whatever the method", low=0, high=LARGEST_SEED
    )
    max_length: int = option(256, "tokens per row", low=2)
    per_device_train_batch_size: int = option(8, "rows per device and micro-batch", low=1)
    gradient_accumulation_steps: int = option(1, "micro-batches per step", low=1)
    max_steps: int | None = option(
        None, f"optimizer steps; wins over num_train_epochs ({DEFAULT_STEPS} if neither is given)", low=1
    )
    num_train_epochs: float | None = option(None, "passes over the data", low=0, above=True)
    learning_rate: float = option(
        None,
        "peak learning rate of the matrices (default: the method's, which is far lower for trained weights)",
        low=0,
    )
    aux_lr: float | None = option(
        None,
        "peak learning rate of embeddings, head and vectors (default: learning_rate, or adamw's for trained weights)",
        low=0,
    )
    weight_decay: float = option(None, "decoupled weight decay (default: 0.1; 0 for trained weights)", low=0)
    max_grad_norm: float = option(
        1.0, "norm that raw gradients together are clipped to; 0 switches clipping off", low=0
    )
    on_nonfinite: OnNonFinite = option("stop", "what to do with a loss or gradient that is not finite: of skips, a few")
    retain: str | None = option(
        None,
        "forget less: own (contexts of what the model writes itself), home text, or a context card (docs/retention.md); ewc takes"
        " text, own where nothing is given",
    )
    replay: float = option(
        0.0, "share of all rows that are home text, in place of as many new ones", low=0, high=1, below=True
    )
    replay_data: str = option(OWN_TEXT, "home text of replay: own (the model writes it), or a file or folder")
    beta: float = option(0.0, "weight of the entanglement loss; the logged training loss is then the total; 0 is off")
    kernel: str = option("cosine", "of the entanglement loss, between context and gradient: cosine, rbf or dot")
    stop_gradient: str = option("none", "side of that kernel held constant: none, context or gradient")
    warmup_steps: float = option(
        None,
        "steps of warm-up, or below 1 the fraction of all steps (default: 0.05; 10 steps for trained weights)",
        low=0,
    )
    lr_scheduler_type: str = option(
        None,
        "schedule of both learning rates: linear, constant, ... (default: cosine; schedule_free wants constant_with_warmup)",
    )
    bf16: bool | None = option(
        None, "bfloat16 autocast (default: false, but for large trained models on processors a short trial decides)"
    )
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass to save memory")
    sharding: Sharding = option(
        "ddp", "of many processes, whether each holds the whole model, or shards of all weights"
    )
    lora_r: int = option(0, "rank of LoRA adapters; 0 trains all weights", low=0)
    lora_alpha: int = option(16, "scale of LoRA adapters")
    lora_init: LoraInit = option(
        "random", "how factor A begins: at random, or in what contexts of retain leave alone (home_null)"
    )
    lora_target_modules: str = option("all-linear", "modules that get adapters, comma-separated")
    trust_remote_code: bool = option(False, "run code that a hub model brings along")
    validation_data: str | None = option(None, "held-out text in its own file (default: a part of data)")
    validation_fraction: float = option(
        0.05, "part of data that is held out for validation, by document", low=0, high=1, above=True, below=True
    )
    eval_steps: int = option(50, "steps between validations; 0 validates at the start and the end only", low=0)
    eval_rows: int = option(64, "rows of max_length tokens in every validation", low=1)
    logging_steps: int = option(10, "steps between lines of metrics.jsonl; 0 writes none", low=0)
    save_steps: int = option(0, "steps between checkpoints; 0 keeps none", low=0)
    save_total_limit: int = option(0, "newest checkpoints that are kept, at least 2; 0 keeps all")
    resume_from_checkpoint: str | None = option(
        None, "checkpoint folder to go on from, or 'latest' for the newest whole one in output_dir"
    )
    resume_without_optimizer: bool = option(False, "resume also when the optimizer's state is lost; it starts afresh")
    report_to: str = option(
        trackers.NONE,
        "trackers that hear of the metrics too, comma-separated: none, wandb, tensorboard, mlflow, trackio, ... or all",
    )
    threads: int = option(0, "torch threads; 0 takes as many as find a free core", low=0)
    progress: bool = option(True, "show a progress bar when the terminal can")
    operator: str | None = option(None, "who answers for the run; kept in its records (docs/audit.md)")
    data_source: str | None = option(None, "where the text comes from; kept in the records")
    data_licence: str | None = option(None, "under which licence the text may be used; kept in the records")
    explain_rows: int = option(
        0, "training rows, evenly picked, of which explanation.json says how they pull the weights at the end", low=0
    )
    dry_run: bool = option(False, "print configuration, groups, tokens, time and memory; train nothing, write nothing")
    optimizer_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_method(self.method)
        for name, value in self._defaults().items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        super().__post_init__()
        self._check_together()

    def _defaults(self) -> dict[str, Any]:
        """What is taken where nothing is given: weights that were trained must not lose what they know."""
        rates = METHODS[self.method].rates
        schedule = {"lr_scheduler_type": METHODS[self.method].schedule}
        if self.is_fresh:
            return {"learning_rate": rates.fresh, "weight_decay": 0.1, "warmup_steps": 0.05, **schedule}
        known = {"retain": OWN_TEXT} if METHODS[self.method].retains == "fisher" else {}
        # A rate that was given holds for all weights, as it does for fresh ones.
        aux: dict[str, Any] = {"aux_lr": METHODS[REFERENCE].rates.trained} if self.learning_rate is None else {}
        rate = rates.adapters if self.lora_r else rates.trained
        return {**aux, **known, "learning_rate": rate, "weight_decay": 0.0, "warmup_steps": 10.0, **schedule}

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

    def _check_together(self) -> None:
        usual = METHODS[self.method].schedule
        if usual.startswith("constant") and not self.lr_scheduler_type.startswith("constant"):
            raise ValueError(
                f"lr_scheduler_type={self.lr_scheduler_type!r}: {self.method} averages steps instead; use {usual}"
            )
        if self.sharding == "fsdp" and (self.lora_r or self.beta):
            raise ValueError(
                "sharding=fsdp goes with neither lora_r nor beta, which need whole weights; use sharding=ddp"
            )
        check_loss_options(self.beta, self.kernel, self.stop_gradient)
        trackers.listed(self.report_to)
        if self.save_total_limit < 0 or self.save_total_limit == 1:
            raise ValueError(
                f"save_total_limit={self.save_total_limit} must be 0 or at least 2, so that a damaged checkpoint has one before it"
            )
        if self.lora_r and self.is_fresh:
            raise ValueError(
                f"lora_r={self.lora_r} wants trained weights under its adapters, and {self.model_name_or_path!r} begins at random; "
                "give a trained model, or leave lora_r out"
            )
        self._check_retention()
        if self.explain_rows and (self.method != SUBJECT or self.sharding == "fsdp"):
            why = "shards hold no whole gradient" if self.method == SUBJECT else f"{self.method} entangles no gradient"
            raise ValueError(
                f"explain_rows={self.explain_rows} wants method cegm with sharding=ddp, and {why}; leave explain_rows out"
            )
        if self.data == WORLD and self.steps is None:
            raise ValueError("data 'world' has no end, so num_train_epochs means nothing; give max_steps")
        for name in self.optimizer_options:
            _require_optimizer_option(name)

    def _check_retention(self) -> None:
        retains = METHODS[self.method].retains or ("card" if self.lora_init == HOME_NULL else "")
        if self.retain and (self.is_fresh or not retains):
            why = (
                f"{self.model_name_or_path!r} has random weights" if self.is_fresh else f"{self.method} has no contexts"
            )
            raise ValueError(
                f"retain={self.retain} wants method cegm or ewc, or lora_init={HOME_NULL}, on a trained model, and {why}; leave"
                " retain out"
            )
        if self.lora_init == HOME_NULL and (not self.lora_r or not self.retain or retains == "fisher"):
            raise ValueError(
                f"lora_init={HOME_NULL} wants lora_r, and in retain the contexts that adapters begin away from, of another method"
                " than ewc; give both, or leave it out"
            )
        if retains == "fisher" and str(self.retain).endswith(".safetensors"):
            raise ValueError(
                f"retain={self.retain} is a card, and {self.method} gathers its own numbers; give own or home text"
            )
        if self.optimizer_options.get("retain_pull") and not self.retain:
            raise ValueError("retain_pull wants a context card: give retain as well, such as own")
        if self.replay and self.is_fresh:
            raise ValueError(
                f"replay={self.replay:g} wants a model that knows something, and {self.model_name_or_path!r} has random weights; leave it out"
            )

    def to_dict(self) -> dict[str, Any]:
        """Every field, as plain values that YAML can hold."""
        plain = dataclasses.asdict(self)
        options = plain["optimizer_options"]
        plain["optimizer_options"] = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}
        return plain


def from_mapping(values: Mapping[str, Any], source: str) -> RunConfig:
    """A configuration from names of fields and of optimizer options, and values, text or already typed.

    ValueError, which begins with the source, for an unknown name (the nearest one is suggested) or a value of the wrong type.
    """
    fields, rest = split(RunConfig, values)
    nested = rest.pop("optimizer_options", None) or {}
    if not isinstance(nested, Mapping):
        raise ValueError(f"{source}: optimizer_options must hold names and values, not {nested!r}")
    for name in nested:
        _require_optimizer_option(name, f"{source}: ")
    for name in rest:
        if name not in OPTIMIZER_OPTIONS:
            raise ValueError(f"{source}: unknown option {str(name)!r}; {nearest_option(str(name))}")
    options = {name: convert(name, value, OPTIMIZER_OPTIONS[name]) for name, value in {**nested, **rest}.items()}
    return RunConfig(**fields, optimizer_options=options)


def _require_optimizer_option(name: Any, place: str = "") -> None:
    if name not in OPTIMIZER_OPTIONS:
        raise ValueError(f"{place}optimizer option {str(name)!r} does not exist; {nearest(name, OPTIMIZER_OPTIONS)}")


def nearest_option(name: str) -> str:
    """`did you mean 'x'?` for the option of a run most like `name`, or where to look."""
    suggestion = nearest(name, [*declared(RunConfig), *OPTIMIZER_OPTIONS, "config"])
    return suggestion if suggestion.startswith("did") else "see 'cegm train --help'"

"""What the tool writes, one record per kind of line or file: its names, types and ranges are said here, and checked here on reading.

Numbers that a page draws stay below 1e300; where a file may lack a value, as one of an earlier release does, it is None or
empty. What a record does not name is kept and not looked at.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, defstruct

Kind = TypeVar("Kind")

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Number = Annotated[float, Meta(ge=-1e300, le=1e300)] | None
"""What can be drawn, or was not finite, or not measured."""


class Train(Struct, tag_field="kind", tag="train", kw_only=True):
    """A line of `metrics.jsonl` for a step; losses, times and clipping are means since the line before."""

    step: Count
    tokens: Count
    loss: Number = None
    lr_matrix: Number = None
    lr_adamw: Number = None
    gradient_norm: Number = None
    clip_factor: Number = None
    clipped_share: Number = None
    spike_score: Number = None
    spikes: Number = None
    skipped_steps: Number = None
    entanglement: Number = None
    tokens_per_second: Number = None
    seconds: Number = None
    forward_backward_seconds: Number = None
    optimizer_seconds: Number = None
    refreshed: bool = False
    memory_bytes: Number = None
    layers: dict[str, dict[str, Number]] | UnsetType = UNSET
    batch_hash: str | None = None


class Validation(Struct, tag_field="kind", tag="validation", kw_only=True):
    """A line of `metrics.jsonl` for a validation: nats per token, bits per byte."""

    step: Count
    tokens: Count
    seconds: Number = None
    loss: Number = None
    bits_per_byte: Number = None


class Final(Struct, tag_field="kind", tag="final", kw_only=True, frozen=True):
    """How a run ended, the last line of `metrics.jsonl`.

    Attributes:
        steps: Optimizer steps.
        tokens: Tokens trained on.
        seconds: Training time, evaluation and logging excluded.
        loss: Final validation loss, nats per token.
        bits_per_byte: The same per byte of text, in bits.
        batch_hash: Chain over all batches in order, sha256.
        initial_hash: Weights before the first step, sha256.
        final_hash: Weights after the last step, sha256.
        median_step_seconds: Median over whole training steps.
        optimizer_state_bytes: Bytes of all tensors in the optimizer's state.
        memory_bytes: Peak resident set, or peak allocated on a GPU.
        parameters: Of the model, adapters included.
        spikes: Steps whose loss or gradient norm stood out of those before.
        skipped_steps: Steps given up because something was not finite; they are among `steps`.
    """

    steps: Count
    tokens: Count
    seconds: Number
    loss: Number
    bits_per_byte: Number
    batch_hash: str | None = None
    initial_hash: str | None = None
    final_hash: str | None = None
    median_step_seconds: Number = None
    optimizer_state_bytes: Number = None
    memory_bytes: Number = None
    parameters: Number = None
    spikes: Number = None
    skipped_steps: Number = None


Metrics = Train | Validation | Final
"""A line of `metrics.jsonl`."""


class Result(Struct):
    """`result.json` of a run of a comparison, finished or failed; `Final` tells what its numbers are."""

    status: str | None = None
    error: str | None = None
    attempts: Number = None
    final_loss: Number = None
    bits_per_byte: Number = None
    seconds: Number = None
    median_step_seconds: Number = None
    tokens: Count | None = None
    steps: Number = None
    memory_bytes: Number = None
    optimizer_state_bytes: Number = None
    parameters: Number = None
    trained_length: Number = None
    skipped_steps: Number = None
    spikes: Number = None
    retention: dict[Annotated[str, Meta(pattern="^[0-9]+$")], dict[str, Number]] | None = None
    axes: dict[str, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.status == "finished" and self.tokens is None:
            raise ValueError("a finished run has tokens")


class Planned(Struct):
    """A line of `plan.jsonl`, or a `result.json` that stands in for it: what is needed to find and name a run."""

    id: str
    method: str
    role: str
    seed: Count
    config: dict[str, Any] = {}
    arm: str | UnsetType = UNSET


class Described(Struct):
    """`config.yaml` of a run folder."""

    config: Begun | UnsetType = UNSET
    versions: dict[str, Any] = {}
    hashes: dict[str, Any] = {}
    model: dict[str, Any] = {}
    tokens: dict[str, Any] = {}


class Begun(Struct):
    """Of `Described`, what is read of the `RunConfig`."""

    method: str = ""
    seed: Count = 0


class GuardState(Struct):
    """Of `RunState`, what `cegm.lab.train.guard.Guard` has seen."""

    skipped: Count
    in_a_row: Count
    spikes: Count
    was_spike: bool
    losses: list[float]
    gradients: list[float]


class MeterState(Struct):
    """Of `RunState`, what `cegm.lab.train.meter.Meter` has counted, by its names."""

    seconds: float
    tokens: Count
    batch_hash: str
    line_losses: list[float]
    line_factors: list[float]
    line_tokens: Count
    step_seconds: list[float]
    forward_backward_seconds: list[float]
    guard: GuardState


class ValidationState(Struct):
    """Of `RunState`, the last validation and its step."""

    step: int
    loss: float
    bits_per_byte: float


class RunState(Struct, kw_only=True):
    """`run_state.json` of a checkpoint: what a resumption needs besides what transformers keeps.

    `weights`, `data` and `metrics_hash` are hashes, `model` too (None where that is no folder); `config` has the fields of the
    `RunConfig`, `versions` those of packages and of cegm's code.
    """

    step: Count
    weights: str
    config: dict[str, Any]
    versions: dict[str, Any]
    data: str
    model: str | None
    processes: Annotated[int, Meta(ge=1)]
    metrics_bytes: Count
    metrics_hash: str
    meter: MeterState
    validation: ValidationState


Inside = Annotated[str, Meta(pattern=r"^(?!/)(?!(.*/)?\.\.(/|$))")]
"""A path inside a folder."""

EVENTS: dict[str, type[Struct]] = {
    "start": defstruct("Start", [("config", str)]),
    "resume": defstruct("Resume", [("config", str), ("manifest", str)]),
    "checkpoint": defstruct("Checkpoint", [("step", int), ("manifest", str)]),
    "removed": defstruct("Removed", [("checkpoint", str)]),
    "finish": defstruct("Finish", [("files", dict[Inside, str])]),
}
"""Of lines of `audit.jsonl`, which are sealed, by the name of the event: the facts that are read."""

Named = defstruct("Named", [("event", str)])
"""Any other line of `audit.jsonl`."""


class Examined(Struct):
    """State of one axis in `evaluation.json`; `cegm.lab.tasks.evaluation.Outcome` tells what it means."""

    reason: str
    warnings: tuple[str, ...]
    seconds: float
    tokens: int | None
    sets: str | None


class Evaluation(Struct):
    """`evaluation.json`: what was examined on what, and the state of each axis."""

    settings: dict[str, Any]
    axes: dict[str, Examined]


class General(Struct):
    """A general corpus of `Before`: its hash, by which cards name it, and the token ids of its held-out rows."""

    sha256: str
    rows: list[list[int]]


class Before(Struct):
    """`before.json` of a comparison: what the model that all runs begin with wrote and scored.

    `settings` are hashes of what the file follows from, `own` rows of token ids that it wrote, `scores` those of items by subset.
    """

    settings: dict[str, Any]
    model: str
    trust_remote_code: bool
    own: list[list[int]]
    general: dict[str, General]
    scores: dict[str, dict[str, float]]


class Request(Struct, kw_only=True):
    """A line of `requests.jsonl` of a roll-out: one answered request; a shadow's answer has a line of its own under the same number.

    `time` is ISO in UTC, `user` a salted hash of 16 hex digits, `variant` champion or challenger. `disagrees` is one minus the
    overlap of tokens of a shadow's answer with the champion's, where both answered; `error` is empty where there was none.
    """

    number: Count
    time: str
    user: str
    stage: str
    variant: str
    shadow: bool
    status: int
    seconds: float
    first_byte_seconds: Number = None
    characters: Count
    refused: bool
    error: str = ""
    disagrees: Number = None
    prompt_bits_per_byte: Number = None
    feedback: Number = None
    margin: Number = None


def facts(record: Struct, kind: type[Struct]) -> dict[str, Any]:
    """The fields of a kind of record, as one of them has them."""
    return {name: getattr(record, name) for name in kind.__struct_fields__}


def line(record: Struct) -> str:
    """A record as one line of JSON; numbers that are not finite are null."""
    return json.dumps(msgspec.json.decode(msgspec.json.encode(record, enc_hook=float)), allow_nan=False)


def checked(values: Any, kind: type[Kind], place: str, remedy: str = "restore the file or run again") -> Kind:
    """What a file holds as a record; ValueError, which begins with the place and ends with the remedy, where it is none."""
    try:
        return msgspec.convert(values, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise ValueError(f"{place} is not as it was written ({error}); {remedy}") from None

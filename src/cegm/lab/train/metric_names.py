"""Every scalar of `metrics.jsonl` under the name by which trackers hear of it, with its unit; docs/metrics.md is made from here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import UNSET

from cegm.lab.records import Final, Metrics, Train, Validation


class Scalar(NamedTuple):
    """One number.

    Attributes:
        unit: Empty for a mere number.
        meaning: In a few words.
    """

    unit: str
    meaning: str


PREFIXES = {Train: "", Validation: "eval_", Final: "final_"}
"""Of names, by the line that a number stands in."""

LAYERS = "layers/"
LAYER = "LAYER"
"""What the name of a weight is called in the table."""

NAMES: dict[str, Scalar] = {
    "loss": Scalar("nats per token", "training loss, mean since the line before"),
    "lr_matrix": Scalar("", "learning rate of the matrices"),
    "lr_adamw": Scalar("", "learning rate of what AdamW updates"),
    "gradient_norm": Scalar("", "2-norm of the whole gradient before clipping"),
    "clip_factor": Scalar("", "what clipping multiplied the gradient by"),
    "clipped_share": Scalar("share", "steps since the line before that were clipped"),
    "spike_score": Scalar("standard deviations", "how far the step stood out of those before"),
    "spikes": Scalar("steps", "that stood out, so far"),
    "skipped_steps": Scalar("steps", "given up because something was not finite, so far"),
    "entanglement": Scalar("", "the coefficient of line 7, mean over layers"),
    "tokens": Scalar("tokens", "trained on, so far"),
    "tokens_per_second": Scalar("tokens / s", "since the line before"),
    "seconds": Scalar("s", "training time so far, without validation and saving"),
    "forward_backward_seconds": Scalar("s", "of a step, mean since the line before"),
    "optimizer_seconds": Scalar("s", "of a step: clipping and update, mean since the line before"),
    "refreshed": Scalar("0 or 1", "whether this step recorded contexts"),
    "memory_bytes": Scalar("bytes", "peak memory of the process, or of the GPU"),
    "layers/LAYER/gradient_norm": Scalar("", "Frobenius norm of the layer's gradient"),
    "layers/LAYER/update_to_weight": Scalar("", "root mean square of the update over that of the weight"),
    "layers/LAYER/context_rank": Scalar("", "effective rank of the input contexts"),
    "layers/LAYER/gradient_context_rank": Scalar("", "effective rank of the output-gradient contexts"),
    "layers/LAYER/cosine": Scalar("", "between the gradient before and after the context map"),
    "layers/LAYER/entanglement": Scalar("", "the coefficient of line 7"),
    "layers/LAYER/home": Scalar("", "how much of the update home contexts notice; 1: as much as of a random one"),
    "layers/LAYER/gradient_rank": Scalar("", "effective rank of the raw gradient"),
    "layers/LAYER/mapped_rank": Scalar("", "effective rank after momentum and map"),
    "layers/LAYER/update_rank": Scalar("", "effective rank of the direction the weight moved in"),
    "eval_loss": Scalar("nats per token", "validation loss"),
    "eval_bits_per_byte": Scalar("bits per byte", "the same for a byte of text"),
    "eval_tokens": Scalar("tokens", "trained on until this validation"),
    "eval_seconds": Scalar("s", "training time until this validation"),
    "final_loss": Scalar("nats per token", "validation loss at the end"),
    "final_bits_per_byte": Scalar("bits per byte", "the same for a byte of text"),
    "final_steps": Scalar("steps", "of the optimizer"),
    "final_tokens": Scalar("tokens", "trained on"),
    "final_seconds": Scalar("s", "training time"),
    "final_median_step_seconds": Scalar("s", "of a whole step"),
    "final_optimizer_state_bytes": Scalar("bytes", "of the optimizer's state"),
    "final_memory_bytes": Scalar("bytes", "peak memory"),
    "final_parameters": Scalar("weights", "of the model, adapters included"),
    "final_spikes": Scalar("steps", "that stood out"),
    "final_skipped_steps": Scalar("steps", "given up because something was not finite"),
}


def scalars(record: Metrics) -> dict[str, float]:
    """The finite numbers of a line by name; the step is not among them, it is where they stand."""
    prefix = PREFIXES[type(record)]
    named = [(f"{prefix}{name}", getattr(record, name)) for name in record.__struct_fields__ if name != "step"]
    numbers = {name: float(value) for name, value in [*named, *_of_layers(record)] if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _of_layers(record: Metrics) -> Iterator[tuple[str, float | None]]:
    if isinstance(record, Train) and record.layers is not UNSET:
        for layer, numbers in record.layers.items():
            for name, value in numbers.items():
                yield f"{LAYERS}{layer}/{name}", value

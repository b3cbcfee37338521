"""A number that is not finite stops the run before it reaches the weights; here is found where it came from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cegm.lab.train.sharded import reshard
from cegm.sharding import whole

ROWS_NAMED = 8
BAD_WEIGHT = "weight "
"""How a place begins when it is a weight: no later batch can mend that."""


BAD_OUTPUT = "output of layer "
ORDER = (BAD_WEIGHT, BAD_OUTPUT, "")
"""How places begin, in the order of computation; what is left are gradients."""


class NonFiniteError(RuntimeError):
    """Loss or gradient is not finite. Nothing was updated.

    Attributes:
        layer: The first bad layer, in words.
        step: The step that was stopped, from 1.
        rows: Rows of the training set it happened on.
        skipped: Such steps that were given up before, by `on_nonfinite=skip`.
    """

    def __init__(self, layer: str, step: int, rows: list[int], skipped: int = 0) -> None:
        self.layer, self.step, self.rows, self.skipped = layer, step, rows, skipped
        before = f" after {skipped} skipped ones" if skipped else ""
        named = ", ".join(map(str, rows[:ROWS_NAMED])) + (" ..." if len(rows) > ROWS_NAMED else "")
        super().__init__(
            f"non-finite {layer} at step {step}, rows {named} of the training data; stopped before the update{before}. "
            "Check those rows, or lower learning_rate and max_grad_norm"
        )


@torch.no_grad()
def find_first_bad(model: nn.Module, micro_batches: list[tuple[dict[str, Tensor], list[int]]]) -> tuple[str, list[int]]:
    """Where a non-finite number first appears, in the order of computation: weights, outputs, gradients.

    Micro-batches are inputs of the step with the rows of the data set that they hold. Returns the place in words, and the rows
    whose own forward pass is not finite (all of the step if none is).
    """
    place = next((f"{BAD_WEIGHT}{name}" for name, p in model.named_parameters() if not _is_finite(p)), None)
    # The backward pass runs from the last layer to the first, so the bad gradient nearest to the end came first. Looked for
    # in any case, because shards are put together by all processes, and an output may be bad on one of them alone.
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    gradient = next((f"gradient of {name}" for name, each in reversed(named) if not _is_finite(each)), None)
    bad_rows: list[int] = []
    for inputs, rows in micro_batches:
        for index, row in enumerate(rows):
            output = _first_bad_output(model, {name: value[index : index + 1] for name, value in inputs.items()})
            if output is not None:
                place = place or f"{BAD_OUTPUT}{output}"
                bad_rows.append(row)
    reshard(model)
    return place or gradient or "gradient norm (every entry is finite, their sum of squares is not)", bad_rows or [
        row for _, rows in micro_batches for row in rows
    ]


def earliest(found: list[tuple[str, list[int]]]) -> tuple[str, list[int]]:
    """What all processes say together of their own rows, as `find_first_bad` tells it: the place computed first, and its rows."""

    def order(place: str) -> int:
        return next(number for number, beginning in enumerate(ORDER) if place.startswith(beginning))

    first = min((place for place, _ in found), key=order)
    return first, [row for place, rows in found if order(place) == order(first) for row in rows]


def _first_bad_output(model: nn.Module, inputs: dict[str, Tensor]) -> str | None:
    """Name of the first module whose output on one row is not finite."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if not found and isinstance(tensor, Tensor) and not _is_finite(tensor):
                found.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        model(**{name: value for name, value in inputs.items() if name != "labels"})
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(whole(tensor)).all())

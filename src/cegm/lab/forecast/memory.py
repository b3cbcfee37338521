"""Memory of the busiest device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cegm.lab.forecast.weights import Weight

UPDATE_COPIES = 5
"""Of the largest batch of equal shapes that an update holds at a time: gradient, entangled gradient, and three of the polar iteration."""

MAP_COPIES = 1
"""More of them where a map stands between."""

MAPPING_COPIES = 5
"""Of the largest batch of equal blocks that a refresh holds at a time: stacked, scaled, symmetric, eigenvectors or roots, result."""


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        weights: Trainable or not.
        gradients: Of trainable weights, in float32.
        state: Of the optimizer.
        gathered: Whole weights that FSDP holds for the block that runs and the next, embeddings and head; DDP's buckets.
        activations: That a micro-batch keeps for its backward pass, and the gradient of its logits.
        contexts: Recorded in a step that refreshes, whole on every device.
        mapping: Held beside them while they become maps.
        temporaries: Of the update, which comes when contexts are gone.
        accumulates: Whether gradients of earlier micro-batches are there while activations are.
    """

    weights: float
    gradients: float
    state: float
    gathered: float
    activations: float
    contexts: float
    mapping: float
    temporaries: float
    accumulates: bool

    @property
    def peak(self) -> float:
        """The most at a time.

        Activations are freed while gradients come, so either all activations are there or all gradients, and with these
        either contexts or what the update holds.
        """
        forward = self.gathered + self.activations + (self.gradients if self.accumulates else 0.0)
        update = self.gradients + max(self.contexts + self.mapping, self.temporaries)
        return self.weights + self.state + max(forward, update)


def update_temporaries(matrices: Sequence[Weight]) -> float:
    """Bytes that Algorithm 1 holds beside state and gradients while it updates these matrices; those of equal shape go together.

    The direction of the batch before is still there.
    """
    batches: dict[tuple[int, ...], float] = defaultdict(float)
    for piece in (piece for weight in matrices for piece in weight.pieces):
        batches[piece] += 4.0 * piece[0] * piece[1]
    if not batches:
        return 0.0
    before, largest = sorted([0.0, *batches.values()])[-2:]
    return before + largest * (UPDATE_COPIES + MAP_COPIES * any(any(piece[2:]) for piece in batches))


def adamw_temporaries(sizes: Sequence[float], device: str) -> float:
    """Bytes that AdamW holds beside state and gradients, given those of the weights that it updates.

    On accelerators torch takes roots of all second moments at once; on processors it goes from weight to weight.
    """
    return sum(sizes) if device == "cuda" else 2.0 * max(sizes, default=0.0)


def refresh_temporaries(matrices: Sequence[Weight]) -> float:
    """Bytes that a refresh of these matrices' maps holds beside what was recorded."""
    batches: dict[tuple[int, int], float] = defaultdict(float)
    for outputs, inputs, *widths in (piece for weight in matrices for piece in weight.pieces):
        for features, width in zip((inputs, outputs), widths, strict=True):
            batches[features, width] += 4.0 * features * width
    return MAPPING_COPIES * max(batches.values(), default=0.0)

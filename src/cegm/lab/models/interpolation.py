"""Between a model before and after training: WiSE-FT (arXiv 2109.01903), which gives new text up for what was known."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def interpolated(before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights on the straight line from one model to another, in the types of the second.

    Args:
        before: Weights by name.
        after: Those that training made of them.
        share: Of the second, in [0, 1]: 0 is before, 1 after.

    Raises:
        ValueError: A share outside of that, or models of other layers or shapes.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share:g} is outside [0, 1]; 0 is the model before, 1 that after training")
    unlike = [n for n in sorted(before.keys() | after.keys()) if _shape(before, n) != _shape(after, n)]
    if unlike:
        raise ValueError(
            f"{unlike[0]} is {_shape(before, unlike[0])} before and {_shape(after, unlike[0])} after; give two models of one kind"
        )
    return {
        name: weight if not weight.is_floating_point() else before[name].float().lerp(weight.float(), share).to(weight)
        for name, weight in after.items()
    }


def _shape(weights: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(weights[name].shape)) if name in weights else "missing"

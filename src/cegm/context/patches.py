"""A layer's inputs and output gradients as rows, one per token: positions of a text, or patches of a signal or image."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Geometry(NamedTuple):
    """How a convolution walks over its input.

    Attributes:
        dimensions: 1 for a signal, 2 for an image.
        kernel: Size of a patch, (rows, columns); a signal has one row.
        stride: Distance between patches.
        dilation: Distance inside a patch.
        padding: As `F.pad` takes it.
        padding_mode: As `F.pad` names it.
        groups: Of channels, each of which meets outputs of its own.
    """

    dimensions: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, ...]
    padding_mode: str
    groups: int = 1


def geometry(module: nn.Module) -> Geometry | None:
    """Of an `nn.Conv1d` or `nn.Conv2d`; None for a linear layer."""
    if not isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return None
    padding: Any = module._reversed_padding_repeated_twice  # the amounts on each side, `same` resolved
    return Geometry(
        len(module.kernel_size),
        _rows_and_columns(module.kernel_size),
        _rows_and_columns(module.stride),
        _rows_and_columns(module.dilation),
        tuple(padding),
        "constant" if module.padding_mode == "zeros" else module.padding_mode,
        module.groups,
    )


def geometry_of_call(
    weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Geometry:
    """Of a call of `F.conv1d` or `F.conv2d`, whose input nobody pads but the call itself."""
    kernel = tuple(weight.shape[2:])
    strides, dilations = (_repeated(each, len(kernel)) for each in (stride, dilation))
    if padding == "valid":
        before = after = (0,) * len(kernel)
    elif padding == "same":
        totals = [d * (size - 1) for d, size in zip(dilations, kernel, strict=True)]
        before = tuple(total // 2 for total in totals)
        after = tuple(total - total // 2 for total in totals)
    else:
        before = after = _repeated(padding, len(kernel))
    sides = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    shapes = [_rows_and_columns(each) for each in (kernel, strides, dilations)]
    return Geometry(len(kernel), shapes[0], shapes[1], shapes[2], tuple(sides), "constant", groups)


def _repeated(size: Any, dimensions: int) -> tuple[int, ...]:
    """As torch reads a size: one number counts for every dimension."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes * dimensions if len(sizes) == 1 else sizes


def _rows_and_columns(sizes: tuple[int, ...]) -> tuple[int, int]:
    return (sizes[0], sizes[1]) if len(sizes) == 2 else (1, sizes[0])


def context_rows(inputs: Tensor, walk: Geometry | None) -> Tensor:
    """Contexts `c_i`, shape (tokens, inputs); of a convolution, its patches, one of every group of channels.

    Args:
        inputs: Of a linear layer (..., inputs); of a convolution ([images,] channels, [rows,] columns).
        walk: Of the convolution, None for a linear layer.
    """
    inputs = _entries(inputs)
    if walk is None:
        return inputs.reshape(-1, inputs.shape[-1])
    images = inputs if inputs.ndim == walk.dimensions + 2 else inputs[None]
    images = F.pad(images, walk.padding, walk.padding_mode)
    images = images.unsqueeze(-2) if walk.dimensions == 1 else images  # (images, channels, rows, columns)
    patches = F.unfold(images, walk.kernel, walk.dilation, stride=walk.stride)  # (images, inputs, patches)
    if walk.groups > 1:
        patches = patches.unflatten(1, (walk.groups, -1)).flatten(0, 1)  # (images x groups, inputs, patches)
    return patches.mT.flatten(0, 1)


def demand_rows(gradient: Tensor, walk: Geometry | None) -> Tensor:
    """Demands `d_i`, shape (..., positions, outputs): of a linear layer as they are, of a convolution (tokens, outputs)."""
    gradient = _entries(gradient)
    if walk is None:
        return gradient
    images = gradient if gradient.ndim == walk.dimensions + 2 else gradient[None]
    images = images.flatten(2).mT  # (images, patches, outputs)
    if walk.groups > 1:  # a patch of one group has no part in the outputs of the others
        own = torch.eye(walk.groups, dtype=images.dtype, device=images.device)
        own = own.repeat_interleave(images.shape[-1] // walk.groups, dim=1)  # (groups, outputs)
        images = images.unsqueeze(1) * own.unsqueeze(1)  # (images, groups, patches, outputs)
    return images.flatten(0, -2)


def _entries(tensor: Tensor) -> Tensor:
    """A tensor whose rows lie beside each other: of texts of several lengths, one behind the other."""
    if torch.compiler.is_compiling() or tensor.layout is torch.strided:
        return tensor
    return tensor.values() if tensor.is_nested else tensor.to_dense()

"""Which part of a weight a tensor is: views and copies of it are told by their addresses, whatever they were made with."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Stack(NamedTuple):
    """Matrices as they lie in the memory of a weight: how many, their sides, and the distance from one to the next of each."""

    experts: int
    outputs: int
    inputs: int
    per_expert: int
    per_output: int
    per_input: int

    def turned(self) -> Stack:
        """The same weight, if its outputs are the inputs."""
        return Stack(self.experts, self.inputs, self.outputs, self.per_expert, self.per_input, self.per_output)


def stack_of(weight: Tensor, transposed: bool, is_kernel: bool) -> Stack | None:
    """How a weight lies in memory; None if its entries do not fill it in an order that can be told.

    Args:
        weight: A matrix, a stack of them, or the kernel of a convolution.
        transposed: It is stored (inputs, outputs).
        is_kernel: It is (outputs, channels, ...), whose inputs are patches.
    """
    if is_kernel or weight.ndim not in (2, 3):
        inputs = weight.shape[1:].numel()
        return Stack(1, len(weight), inputs, weight.numel(), inputs, 1) if weight.is_contiguous() else None
    rows, columns = weight.shape[-2:]
    experts, between = (len(weight), weight.stride(0)) if weight.ndim == 3 else (1, weight.numel())
    inner, outer = sorted(zip(weight.stride()[-2:], (rows, columns), strict=True))
    if inner[0] < 1 or outer[0] < math.prod(inner) or between < math.prod(outer):
        return None
    stack = Stack(experts, rows, columns, between, *weight.stride()[-2:])
    return stack.turned() if transposed else stack


class Source(NamedTuple):
    """A tensor that holds entries of a weight: the weight itself, or a copy of a part of it.

    Attributes:
        tensor: Of which views are made.
        first: Where in its memory the first block begins.
        block: Entries of a block, inside of which everything lies as in the weight.
        starts: Where in the weight each block begins, (blocks,); none if that cannot be told.
    """

    tensor: Tensor
    first: int | torch.SymInt
    block: int
    starts: Tensor

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is this one or a view of it through which gradients come."""
        if tensor is not self.tensor and (tensor._base is None or tensor._base is not self.tensor):
            return False
        if not tensor.requires_grad:
            return False
        # FSDP keeps several weights in one tensor.
        return len(self.starts) == 0 or 0 <= tensor.storage_offset() - self.first < self.block * len(self.starts)

    def addresses(self, view: View) -> Tensor | None:
        """Where in the weight each matrix of a view begins, (lead...); None if one is not inside a block."""
        places = torch.tensor(view.offset - self.first, device="cpu")
        for size, stride in view.lead:
            places = places[..., None] + torch.arange(size, device="cpu") * stride
        length = sum((size - 1) * stride for size, stride in (view.rows, view.inputs)) + 1
        if len(self.starts) == 0 or places.numel() == 0:
            return None
        blocks = places // self.block
        inside = (blocks >= 0) & (blocks < len(self.starts)) & (places % self.block + length <= self.block)
        return self.starts[blocks] + places % self.block if bool(inside.all()) else None


class View(NamedTuple):
    """A tensor seen as matrices (lead..., rows, inputs): sizes and strides, and where it begins."""

    lead: tuple[tuple[int, int], ...]
    rows: tuple[int, int]
    inputs: tuple[int, int]
    offset: int | torch.SymInt


def view_of(tensor: Tensor, lead: tuple[int, ...], row: int, inputs: tuple[int, ...]) -> View | None:
    """Of a tensor whose dimensions play these parts; None if its inputs do not lie one behind the other."""
    extents = list(zip(tensor.shape, tensor.stride(), strict=True))
    last = next((extents[each] for each in reversed(inputs) if extents[each][0] > 1), (1, 1))
    size, stride = 1, last[1]
    for each in reversed(inputs):
        length, step = extents[each]
        if length > 1 and step != size * stride:
            return None
        size *= length
    return View(tuple(extents[each] for each in lead), extents[row], (size, stride), tensor.storage_offset())


class Part(NamedTuple):
    """Rows of matrices of a weight: which expert and which first row, shapes (lead...), and how the rows go on."""

    experts: Tensor
    first: Tensor
    rows: int
    step: int


def part_of(stack: Stack, source: Source, view: View | None) -> Part | None:
    """Which rows of which matrices a view shows; None if they are no whole rows or cannot be told."""
    if view is None or view.inputs[0] != stack.inputs or view.inputs[1] != stack.per_input:
        return None
    rows, distance = view.rows
    step = max(distance // stack.per_output, 1) if rows > 1 else 1
    if rows == 0 or (rows > 1 and distance != step * stack.per_output):
        return None
    addresses = source.addresses(view)
    if addresses is None:
        return None
    experts, inside = addresses // stack.per_expert, addresses % stack.per_expert
    first = inside // stack.per_output
    is_whole = (inside % stack.per_output == 0) & (first + (rows - 1) * step < stack.outputs)
    return Part(experts, first, rows, step) if bool(is_whole.all()) else None


def source_of(weight: Tensor, stack: Stack) -> Source:
    """The weight itself."""
    tensor = weight if weight._base is None else weight._base
    starts = torch.arange(stack.experts, device="cpu") * stack.per_expert
    return Source(tensor, weight.storage_offset(), stack.per_expert, starts)


def unknown_copy(output: Tensor) -> Source:
    """Entries of the weight in an order that cannot be told."""
    return Source(output, output.storage_offset(), 1, torch.empty(0, dtype=torch.int64, device="cpu"))


def copy_of(source: Source, given: Tensor, output: Tensor, chosen: Tensor | None) -> Source:
    """What a copy of `given`, a part of the weight, holds.

    Args:
        source: What `given` is a part of.
        given: Was copied.
        output: The copy.
        chosen: Which of the matrices stacked in `given` are in it, in which order; all of `given` if None.
    """
    nothing = unknown_copy(output)
    if given.ndim < 2 or output.shape[-2:] != given.shape[-2:] or output.stride()[-2:] != given.stride()[-2:]:
        return nothing
    if chosen is None and output.stride() == given.stride() and _is_dense(given):
        addresses = source.addresses(View((), (1, 1), (given.numel(), 1), given.storage_offset()))
        if addresses is not None:
            return Source(output, output.storage_offset(), given.numel(), addresses[None])
    block = output.shape[-2:].numel()
    between = [block * output.shape[each + 1 : -2].numel() for each in range(output.ndim - 2)]
    if given.ndim != 3 or not _is_dense(given[0]) or list(output.stride()[:-2]) != between:
        return nothing
    matrices = view_of(given, (0,), 1, (2,))
    addresses = None if matrices is None else source.addresses(matrices)
    if addresses is None:
        return nothing
    return Source(output, output.storage_offset(), block, addresses if chosen is None else addresses[chosen].flatten())


def _is_dense(tensor: Tensor) -> bool:
    """Whether its entries fill the memory between the first and the last."""
    length = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return 0 < tensor.numel() == length

"""What a function says of a product: which of its arguments are contexts, and which dimensions of the other are a matrix.

The functions are told by name, because one product has many callables: `torch.matmul`, `Tensor.matmul`, `@`.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from cegm.context.patches import Geometry, geometry_of_call

IsPart = Callable[[Any], bool]


class Product(NamedTuple):
    """A call of a function that multiplies contexts with an operand.

    Attributes:
        contexts: (lead..., tokens..., inputs), lead dimensions as far as they have them; of a convolution its input.
        operand: What they are multiplied with.
        lead: Dimensions of the operand that count matrices, one for each lead dimension of the output.
        row: Dimension of the operand that counts outputs.
        inputs: Dimensions of the operand that are summed over, the farthest apart first.
        order: Of the output's dimensions, so that they are (lead..., tokens..., outputs); None as they are.
        tokens: Dimensions that count tokens, where there are lead dimensions.
        walk: Of a convolution, else None.
        ends: Tokens are sorted by matrix, up to the end of each.
    """

    contexts: Tensor
    operand: Tensor
    lead: tuple[int, ...]
    row: int
    inputs: tuple[int, ...]
    order: tuple[int, ...] | None = None
    tokens: int = 1
    walk: Geometry | None = None
    ends: Tensor | None = None

    def terms(self) -> Iterator[Product]:
        """The products that were summed to this one, over the first of its inputs."""
        sizes = [self.operand.shape[each] for each in self.inputs]
        contexts = self.contexts.unflatten(-1, sizes).movedim(-len(sizes), 0).flatten(-len(sizes) + 1)
        dimension = self.inputs[0]

        def kept(each: int) -> int:
            return each - (each > dimension)

        lead, inputs = tuple(map(kept, self.lead)), tuple(map(kept, self.inputs[1:]))
        for own, operand in zip(contexts, self.operand.unbind(dimension), strict=True):
            yield self._replace(contexts=own, operand=operand, lead=lead, row=kept(self.row), inputs=inputs)


def _linear(is_part: IsPart, input: Tensor, weight: Tensor, bias: Any = None) -> Product | None:
    return None if weight.ndim != 2 or is_part(bias) else Product(input, weight, (), 0, (1,))


def _matmul(is_part: IsPart, input: Any, other: Any, **named: Any) -> Product | None:
    """Of two tensors, one of which is a part of the weight."""
    if named or is_part(input) == is_part(other):
        return None
    if is_part(other):
        lead = tuple(range(other.ndim - 2))
        tokens = min(input.ndim - 1, 1)
        return Product(input, other, lead, other.ndim - 1, (other.ndim - 2,), None, tokens) if other.ndim > 1 else None
    if input.ndim < 2:
        return None
    lead, row, inputs = tuple(range(input.ndim - 2)), input.ndim - 2, (input.ndim - 1,)
    if other.ndim == 1:
        return Product(other, input, lead, row, inputs, tokens=0)
    dimensions = max(input.ndim, other.ndim)
    order = (*range(dimensions - 2), dimensions - 1, dimensions - 2)
    return Product(other.mT, input, lead, row, inputs, order)


def _reversed(is_part: IsPart, input: Any, other: Any) -> Product | None:
    return _matmul(is_part, other, input)


def _mm(is_part: IsPart, input: Tensor, mat2: Tensor, **named: Any) -> Product | None:
    return _matmul(is_part, input, mat2, **named)


def _mv(is_part: IsPart, input: Tensor, vec: Tensor, **named: Any) -> Product | None:
    return _matmul(is_part, input, vec, **named)


def _addmm(
    is_part: IsPart, input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1, **named: Any
) -> Product | None:
    return _matmul(is_part, mat1, mat2, **named) if alpha == 1 and not is_part(input) else None


def _baddbmm(is_part: IsPart, input: Any, batch1: Any, batch2: Any, **named: Any) -> Product | None:
    return _addmm(is_part, input, batch1, batch2, **named)


def _addmv(is_part: IsPart, input: Any, mat: Any, vec: Any, **named: Any) -> Product | None:
    return _addmm(is_part, input, mat, vec, **named)


def _grouped_mm(
    is_part: IsPart, input: Tensor, mat2: Tensor, offs: Tensor | None = None, **named: Any
) -> Product | None:
    if offs is None:
        return _matmul(is_part, input, mat2)
    if input.ndim != 2 or mat2.ndim != 3 or is_part(input) or is_part(named.get("bias")):
        return None
    return Product(input, mat2, (0,), 2, (1,), ends=offs)


def _convolution(
    is_part: IsPart, input: Tensor, weight: Tensor, bias: Any = None, *rest: Any, **named: Any
) -> Product | None:
    if is_part(input) or is_part(bias):
        return None
    walk = geometry_of_call(weight, bias, *rest, **named)
    return Product(input, weight, (), 0, tuple(range(1, weight.ndim)), walk=walk)


def _einsum(is_part: IsPart, equation: Any, *operands: Any) -> Product | None:
    """Of two operands, each of whose letters stands in the other or in the result."""
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    if not isinstance(equation, str) or len(tensors) != 2 or is_part(tensors[0]) == is_part(tensors[1]):
        return None
    terms = _letters(equation, [tensor.ndim for tensor in tensors])
    if terms is None:
        return None
    if is_part(tensors[0]):
        (weight, fed, result), (operand, contexts) = terms, tensors
    else:
        (fed, weight, result), (contexts, operand) = terms, tensors
    by_distance = sorted(weight, key=lambda each: operand.stride(weight.index(each)), reverse=True)
    summed = [each for each in by_distance if each in fed and each not in result]
    own = [each for each in by_distance if each not in fed]
    loose = [each for each in fed if each not in weight]
    if not summed or not own or any(each not in result for each in (*own, *loose)):
        return None
    # What only the weight and the result have counts outputs; if there is more than one such letter, the nearest does.
    row, lead = own[-1], [each for each in weight if each in result and each != own[-1]]
    contexts = contexts.permute([fed.index(each) for each in (*(e for e in lead if e in fed), *loose, *summed)])
    contexts = contexts.flatten(-len(summed))
    for position, each in enumerate(lead):
        contexts = contexts if each in fed else contexts.unsqueeze(position)
    order = tuple(result.index(each) for each in (*lead, *loose, row))
    dimensions = [tuple(weight.index(each) for each in letters) for letters in (lead, summed)]
    return Product(contexts, operand, dimensions[0], weight.index(row), dimensions[1], order, len(loose))


def _letters(equation: str, dimensions: list[int]) -> list[str] | None:
    """The letters of both operands and of the result, dots spelled out; None where a letter is repeated or there is no arrow."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != 2:
        return None
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = [
        ndim - len(term.replace("...", "")) for term, ndim in zip(terms, dimensions, strict=True) if "..." in term
    ]
    dots = "".join(unused[: max(hidden, default=0)])
    spelled = []
    for term, ndim in zip([*terms, result], [*dimensions, None], strict=True):
        count = len(dots) if ndim is None else ndim - len(term.replace("...", ""))
        spelled.append(term.replace("...", dots[len(dots) - count :]))
    return spelled if all(len(set(each)) == len(each) for each in spelled) else None


PRODUCTS: dict[str, Callable[..., Product | None]] = {
    "linear": _linear,
    "inner": lambda is_part, input, other: _linear(is_part, input, other),
    "matmul": _matmul,
    "__matmul__": _matmul,
    "__rmatmul__": _reversed,
    "mm": _mm,
    "bmm": _mm,
    "mv": _mv,
    "addmm": _addmm,
    "addmv": _addmv,
    "baddbmm": _baddbmm,
    "grouped_mm": _grouped_mm,
    "_grouped_mm": _grouped_mm,
    "grouped_mm_fallback": _grouped_mm,
    "conv1d": _convolution,
    "conv2d": _convolution,
    "einsum": _einsum,
}
"""What is known of a call, by name of the function; None where its product with the weight cannot be told."""

UNTOLD = {
    "bilinear", "tensordot", "multi_dot", "chain_matmul", "outer", "ger", "kron", "dot", "vdot", "vecdot", "cdist",
    "addbmm", "addr", "addmm_", "addmv_", "addbmm_", "baddbmm_", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "convolution", "embedding", "embedding_bag", "multi_head_attention_forward", "matrix_power",
    "_sparse_mm", "_scaled_mm", "scaled_mm", "_scaled_grouped_mm", "scaled_grouped_mm",
}  # fmt: skip
"""Functions that multiply with a weight in a way of which no contexts are told."""


def tensors_in(arguments: Iterator[Any]) -> Iterator[Tensor]:
    """Tensors among arguments, also those in a list."""
    for each in arguments:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, (list, tuple)):
            yield from (one for one in each if isinstance(one, Tensor))

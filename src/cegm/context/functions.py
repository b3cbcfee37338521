"""The functions that run while a module does: which of them multiply contexts with a weight, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from cegm.context.parts import Part, Source, Stack, copy_of, part_of, source_of, stack_of, unknown_copy, view_of
from cegm.context.patches import Geometry
from cegm.context.products import PRODUCTS, UNTOLD, Product, tensors_in
from cegm.context.transforms import in_transform

if TYPE_CHECKING:
    from cegm.context.taps import Observer, Watch

COPIES = {
    "to", "type", "type_as", "float", "double", "half", "bfloat16", "cuda", "cpu", "clone", "contiguous",
    "__getitem__", "index_select",
}  # fmt: skip
"""Functions whose result may hold entries of a weight as they are, in memory of its own."""

SHAPED = {"to", "type_as", "view_as", "expand_as", "reshape_as"}
"""Functions that take no entries from any tensor but the first."""

PARTLY = "its layer meets it in {}() in a way whose contexts cannot be told"
RECOMPUTED = (
    "its layer recomputes its product with it (torch.utils.checkpoint inside its forward), which shows no contexts"
)
TURNED = "its layer multiplies with it as if inputs and outputs were stored the other way round"


class Functions(TorchFunctionMode):
    """Sees the functions that multiply with some weights, or with parts of them, while their module runs."""

    def __init__(self, weights: Iterable[Weight]) -> None:
        super().__init__()
        self._weights = list(weights)
        self._around = _checkpoint()

    def watches(self, observer: Observer) -> bool:
        """Whether it tells an observer what it sees."""
        return any(weight.observer is observer for weight in self._weights)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function, and shows its product to those whose weight is in it."""
        named = kwargs or {}
        output = func(*args, **named)
        if torch.compiler.is_compiling():  # a compiled function inside shows nothing
            return output
        name = getattr(func, "__name__", "").partition(".")[0]
        if not isinstance(output, Tensor) or not output.requires_grad or in_transform():
            return output
        for weight in self._weights:
            taken = list(islice(tensors_in(chain(args, named.values())), 1 if name in SHAPED else None))
            if not any(map(weight.has, taken)):
                continue
            if name not in PRODUCTS and name not in UNTOLD:
                weight.follow(name, args, named, output)
            elif self._around != _checkpoint():
                weight.observer.lose(RECOMPUTED)
            else:
                output = weight.show(name, args, named, output)
        return output


def is_watched(observer: Observer) -> bool:
    """Whether a module that runs now shows an observer all functions."""
    modes = _get_current_function_mode_stack() if torch._C._len_torch_function_stack() else ()
    return any(isinstance(mode, Functions) and mode.watches(observer) for mode in modes)


def _checkpoint() -> Any:
    """What the innermost checkpoint without reentrance does with tensors that are saved for the backward pass; None without."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks if hooks is not None and hooks[0].__module__ == torch.utils.checkpoint.__name__ else None


class Weight:
    """One weight while its module runs, and the copies that were made of it.

    Args:
        watch: Who watches it, and where.
        observer: Of the watch; held here for as long as the module runs.
        module: Runs: that of the watch, or a shallow copy of it.
    """

    def __init__(self, watch: Watch, observer: Observer, module: nn.Module) -> None:
        self.observer = observer
        self._watch, self._place = watch, watch.place._replace(module=module)
        self._sources: list[Source] | None = None
        self._stack: Stack | None = None

    def has(self, tensor: Any) -> bool:
        """Whether a tensor is a part of the weight, or a copy of one, through which gradients come."""
        return self._source(tensor) is not None

    def _source(self, tensor: Any) -> Source | None:
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.is_nested:
            return None
        if self._sources is None:  # not before the module runs: only then FSDP gathers the weight
            self._sources = self._found()
        return next((source for source in self._sources if source.holds(tensor)), None)

    def _found(self) -> list[Source]:
        weight = self._place.weight()
        is_kernel = isinstance(self._place.module, nn.modules.conv._ConvNd) and self._place.path == "weight"
        self._stack = stack_of(weight, self._watch.transposed, is_kernel)
        return [] if self._stack is None else [source_of(weight, self._stack)]

    def follow(self, name: str, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        """Remembers what was made of a part of the weight; to numbers nobody multiplies contexts."""
        if self._sources is None or output.ndim == 0 or self.has(output):
            return
        given = next(tensors_in(chain(args, named.values())))
        source = self._source(given) if name in COPIES else None
        chosen = _chosen(args, named) if name in ("__getitem__", "index_select") else None
        is_told = source is not None and (chosen is not None or name not in ("__getitem__", "index_select"))
        self._sources.append(copy_of(source, given, output, chosen) if source and is_told else unknown_copy(output))

    def show(self, name: str, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
        """The output of a function that takes a part of the weight, as the observer wants it."""
        try:
            product = PRODUCTS[name](self.has, *args, **named) if name in PRODUCTS else None
        except TypeError:  # arguments that the function has in other versions of torch
            product = None
        shown = None if product is None else self._shown(product, output)
        if shown is None:
            self.observer.lose(PARTLY.format(name))
        return output if shown is None else shown

    def _shown(self, product: Product, output: Tensor) -> Tensor | None:
        """The output; None if what met the weight cannot be told exactly."""
        source, stack = self._source(product.operand), self._stack
        if source is None or stack is None or not _is_ordinary(product, output):
            return None
        view = view_of(product.operand, product.lead, product.row, product.inputs)
        part = part_of(stack, source, view)
        if part is None and part_of(stack.turned(), source, view) is not None:
            return self._shown_turned(product, output)
        if part is None and len(product.inputs) > 1 and product.walk is None:
            return self._shown_terms(product, output)
        if part is None:
            return None
        rows = Rows(self.observer, stack.outputs, part)
        if product.walk is not None:
            is_whole = part.rows == stack.outputs
            return rows.see(output, product.contexts, product.walk) if is_whole or product.walk.groups == 1 else None
        if product.ends is not None:
            return rows.see_sorted(output, product.contexts, product.ends.tolist())
        return _arranged(rows, product, output)

    def _shown_turned(self, product: Product, output: Tensor) -> Tensor | None:
        """The output of a product with a weight that is stored the other way round."""
        assert self._stack is not None
        if not self.observer.turn(not self._watch.transposed):
            self.observer.lose(TURNED)
            return output
        self._watch.transposed, self._stack = not self._watch.transposed, self._stack.turned()
        return self._shown(product, output)

    def _shown_terms(self, product: Product, output: Tensor) -> Tensor | None:
        """The output of a sum of products, each of which meets the same demands."""
        shown: Tensor | None = output
        for term in product.terms():
            shown = None if shown is None else self._shown(term, shown)
        return shown


def _chosen(args: tuple[Any, ...], named: dict[str, Any]) -> Tensor | None:
    """Numbers along the first dimension that an index chooses; None if it chooses anything else."""
    index = args[-1] if not named else named.get("index")
    dimension = named.get("dim", args[1] if len(args) == 3 else 0)
    if isinstance(index, list):
        index = torch.tensor(index, device="cpu")
    if dimension != 0 or not isinstance(index, Tensor) or (index.dtype is torch.bool and index.ndim > 1):
        return None
    index = index.detach().cpu()
    return index.nonzero().flatten() if index.dtype is torch.bool else index.long()


def _is_ordinary(product: Product, output: Tensor) -> bool:
    """Whether a product is of plain tensors of real numbers, of which contexts are no weight themselves."""
    contexts = product.contexts
    if not isinstance(contexts, Tensor) or isinstance(contexts, nn.Parameter) or not output.is_floating_point():
        return False
    is_plain = output.layout is torch.strided and not output.is_nested and contexts.layout is torch.strided
    return is_plain or not (product.lead or product.order or product.walk)


def _arranged(rows: Rows, product: Product, output: Tensor) -> Tensor:
    """Of a product whose output has its dimensions in any order, and may have several matrices in it."""
    order = product.order
    arranged = output if order is None else output.permute(order)
    seen = _by_matrix(rows, product, arranged) if product.lead else rows.see(arranged, product.contexts, None)
    return seen if order is None else seen.permute([order.index(each) for each in range(output.ndim)])


def _by_matrix(rows: Rows, product: Product, output: Tensor) -> Tensor:
    """Of (lead..., tokens..., outputs), where each entry of the lead dimensions has a matrix of its own."""
    contexts, shape = product.contexts, output.shape
    if product.tokens == 0:
        output, contexts = output.unsqueeze(-2), contexts.unsqueeze(-2)
    elif product.tokens > 1:
        output, contexts = (each.flatten(-1 - product.tokens, -2) for each in (output, contexts))
    return rows.see_each(output, contexts.expand(*output.shape[:-1], -1)).view(shape)


class Rows(NamedTuple):
    """Rows of matrices that met contexts; the others of the `outputs` had no part in the loss."""

    observer: Observer
    outputs: int
    part: Part

    def see(self, output: Tensor, contexts: Tensor, walk: Geometry | None) -> Tensor:
        """A product with the rows of one matrix, (..., rows)."""
        return self._see(output, contexts, walk, int(self.part.experts.flatten()[0]), int(self.part.first.flatten()[0]))

    def see_sorted(self, output: Tensor, contexts: Tensor, ends: list[int]) -> Tensor:
        """Of tokens that are sorted by matrix, up to the `ends` of each; what comes behind the last belongs to none."""
        pieces, start = [], 0
        for end, *place in zip(ends, self.part.experts.tolist(), self.part.first.tolist(), strict=True):
            if end > start:
                pieces.append(self._see(output[start:end], contexts[start:end], None, *place))
            start = max(start, end)
        return torch.cat([*pieces, output[start:]])

    def see_each(self, output: Tensor, contexts: Tensor) -> Tensor:
        """Of (batch..., tokens, rows), whose matrices go with the last dimensions of the batch."""
        keys = (self.part.experts * self.outputs + self.part.first).broadcast_to(output.shape[:-2]).flatten()
        keys, order = keys.sort(stable=True)
        found, counts = keys.unique_consecutive(return_counts=True)
        if len(found) == 1:
            return self.see(output, contexts, None)
        here = order.to(output.device)
        outputs, fed = (each.flatten(0, -3)[here].split(counts.tolist()) for each in (output, contexts.detach()))
        pieces = [
            self._see(own.flatten(0, 1), vectors.flatten(0, 1), None, *divmod(key, self.outputs)).view_as(own)
            for key, own, vectors in zip(found.tolist(), outputs, fed, strict=True)
        ]
        return torch.cat(pieces)[order.argsort().to(output.device)].view_as(output)

    def _see(self, output: Tensor, contexts: Tensor, walk: Geometry | None, expert: int, first: int) -> Tensor:
        """Of a product with rows of one matrix."""
        if self.part.rows == self.outputs:
            seen = self.observer.see(output, contexts, walk, expert)
            return output if seen is None else seen
        features = -1 if walk is None else -1 - walk.dimensions
        index = first + self.part.step * torch.arange(self.part.rows, device=output.device)
        shape = list(output.shape)
        shape[features] = self.outputs
        whole = output.new_zeros(shape).index_copy(features, index, output)
        seen = self.observer.see(whole, contexts, walk, expert)
        return output if seen is None else seen.index_select(features, index)

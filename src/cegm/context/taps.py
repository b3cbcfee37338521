"""Where a weight meets its contexts: the places in a model at which inputs and outputs of a weight can be seen.

Most weights stand in a layer that multiplies its only argument with them, so that a hook on the layer sees both. Elsewhere
(subclasses with a `forward` of their own, the experts of a mixture, parameters of any module) the weight is watched
through the functions that take it while its module runs, so that what is seen is what met the weight, whatever the
module's arguments, padding or output look like.

Hooks know their observer weakly and go when it goes. A copied or pickled model takes a copy of the observer along, for
an optimizer that is copied with it; without one that copy is gone at once, and so are its hooks.
"""

from __future__ import annotations

import functools
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from cegm.context.patches import Geometry, geometry, geometry_of_call
from cegm.sharding import is_sharded


class Place(NamedTuple):
    """A module whose forward pass uses a weight, and the name of the weight below it."""

    module: nn.Module
    path: str

    def weight(self) -> Tensor:
        """The tensor that is there now, which FSDP and `functional_call` exchange."""
        found: Tensor = functools.reduce(getattr, self.path.split("."), self.module)  # type: ignore[arg-type, assignment]
        return found


class Hooked:
    """Something whose hooks on a model go when it goes, also those of its copy."""

    def __init__(self) -> None:
        self.handles: list[RemovableHandle] = []

    def hold(self, handles: Iterable[RemovableHandle]) -> None:
        """Takes hooks as its own."""
        for handle in handles:
            self.handles.append(handle)
            weakref.finalize(self, handle.remove)

    def unhook(self) -> None:
        """Takes all hooks away now."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The handles of a copy are those of the copied model."""
        vars(self).update(state, handles=[])
        self.hold(state["handles"])


class Observer(Hooked, ABC):
    """What a tap tells: `cegm.context.layers.Recorder` for an optimizer, and its like for an explanation."""

    parameter: Tensor

    @abstractmethod
    def listens(self, module: nn.Module) -> bool:
        """Whether a call of `module` that begins now is to be seen."""

    @abstractmethod
    def see(self, output: Tensor, contexts: Tensor, walk: Geometry | None, part: int) -> Tensor | None:
        """Sees one product.

        Args:
            output: (..., outputs), or of a convolution ([images,] outputs, positions...).
            contexts: (..., inputs), or of a convolution its input.
            walk: Of a convolution, else None.
            part: Which of the matrices stacked in the parameter, 0 unless there are several.

        Returns:
            What takes the place of `output`; None leaves it.
        """

    def is_there(self, place: Place) -> bool:
        """Whether the parameter itself is at a place, which FSDP puts a whole one in place of a shard."""
        return is_sharded(self.parameter) or place.weight() is self.parameter


def is_transposed(module: nn.Module) -> bool:
    """Whether `module` is transformers' `Conv1D`, a linear layer that stores (inputs, outputs); told by name, so that only torch is needed."""
    return hasattr(module, "nf") and any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)


def is_plain(place: Place) -> bool:
    """Whether a module multiplies its only argument with the weight and returns the product: nobody has overridden `forward`."""
    module = place.module
    if place.path != "weight" or "forward" in vars(module):
        return False
    forward = type(module).forward
    if forward in (nn.Linear.forward, nn.Conv1d.forward, nn.Conv2d.forward):
        return True
    return is_transposed(module) and next(k for k in type(module).__mro__ if "forward" in vars(k)).__name__ == "Conv1D"


def layer_input(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """The only argument of a layer, however it was called."""
    return inputs[0] if inputs else next(iter(named.values()))


def watch(place: Place, observer: Observer, transposed: bool = False) -> None:
    """Lets `observer` see every product with its parameter at a place, for as long as somebody else holds the observer.

    Args:
        place: Where; another tensor that somebody puts in the parameter's place is not watched.
        observer: Is told.
        transposed: The weight is stored (inputs, outputs).
    """
    module = place.module
    if is_plain(place):
        observer.hold([module.register_forward_hook(_LayerHook(observer, place), with_kwargs=True)])
        return
    hook = _FunctionHook(observer, place, transposed)
    leave = module.register_forward_hook(hook.leave, always_call=True)
    observer.hold([module.register_forward_pre_hook(hook.enter), leave])


def in_transform() -> bool:
    """Whether a function transform (`torch.func`, `vmap`), a trace or forward-mode differentiation runs the model now."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._is_tracing()
        or forward_ad._current_level >= 0
    )


def is_batched(gradient: Tensor) -> bool:
    """Whether a gradient stands for several at once (`is_grads_batched`, `vmap`), of which none reaches the weight itself."""
    functorch = torch._C._functorch
    return not torch.compiler.is_compiling() and (
        functorch.is_legacy_batchedtensor(gradient) or functorch.is_batchedtensor(gradient)
    )


class Weakly:
    """Holds an observer weakly; a copy holds the copy of the observer."""

    def __init__(self, observer: Any) -> None:
        self._reference = weakref.ref(observer)

    @property
    def observer(self) -> Any:
        """None when it is gone."""
        return self._reference()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_reference": self._reference()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        observer = state["_reference"]
        vars(self).update(state, _reference=_gone if observer is None else weakref.ref(observer))


def _gone() -> None:
    """In place of a reference to an observer that was gone when the hook was copied."""


class _LayerHook(Weakly):
    """On a plain layer."""

    def __init__(self, observer: Observer, place: Place) -> None:
        super().__init__(observer)
        self._place = place

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> Any:
        observer = self.observer
        if observer is None or not observer.listens(module):
            return None
        if not torch.compiler.is_compiling() and not observer.is_there(self._place):
            return None
        return observer.see(output, layer_input(inputs, named), geometry(module), 0)


class _FunctionHook(Weakly):
    """On any other module: while it runs, functions that take the weight are seen."""

    def __init__(self, observer: Observer, place: Place, transposed: bool) -> None:
        super().__init__(observer)
        self._place, self._transposed = place, transposed
        self._running: list[_Functions | None] = []

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """Before the forward pass of the module."""
        if torch.compiler.is_compiling():
            return
        observer, mode = self.observer, None
        if observer is not None and observer.listens(module) and observer.is_there(self._place):
            mode = _Functions(observer, self._place.weight(), self._transposed)
            mode.__enter__()  # type: ignore[no-untyped-call]
        self._running.append(mode)

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """After it, also when it ended with an error."""
        mode = self._running.pop() if self._running else None
        if mode is not None:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_running": []}


class _Functions(TorchFunctionMode):
    """Sees the functions that multiply with one weight, or with a part of it."""

    def __init__(self, observer: Observer, weight: Tensor, transposed: bool) -> None:
        super().__init__()
        self._observer, self._weight, self._transposed = observer, weight, transposed

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls the function, and shows its product if this weight is in it."""
        named = kwargs or {}
        output = func(*args, **named)
        product = _PRODUCTS.get(getattr(func, "__name__", ""))
        if product is None or in_transform():
            return output
        seen = product(*args, **named)
        return output if seen is None or not self._is_part(seen.operand) else self._show(seen, output)

    def _is_part(self, operand: Any) -> bool:
        return isinstance(operand, Tensor) and (operand is self._weight or operand._base is self._weight)

    def _show(self, seen: _Product, output: Tensor) -> Tensor:
        """The output as the observer wants it: of a whole matrix, of some rows of one, or of a stack of them."""
        weight, operand = self._weight, seen.operand
        if seen.walk is not None:
            return self._see(output, seen.contexts, seen.walk, 0)
        # A right factor is (inputs, outputs), which is how a transposed weight is stored.
        as_stored = operand.stride()[-2:] == weight.stride()[-2:]
        if as_stored != (self._transposed == seen.is_right_factor):
            return output
        outputs = weight.shape[-1] if self._transposed else weight.shape[-2]
        rows = operand.shape[-1] if seen.is_right_factor else operand.shape[-2]
        if weight.ndim == 2:
            return self._rows(output, seen.contexts, operand, rows, outputs)
        if rows != outputs:
            return output
        if operand.ndim == 2:
            part = (operand.storage_offset() - weight.storage_offset()) // weight.stride(0)
            return self._see(output, seen.contexts, None, part)
        if seen.ends is not None:
            return self._groups(output, seen.contexts, seen.ends.tolist())
        if len(operand) != len(weight):
            return output
        pairs = zip(output, seen.contexts.expand(len(weight), -1, -1), strict=True)
        return torch.stack([self._see(each, contexts, None, part) for part, (each, contexts) in enumerate(pairs)])

    def _rows(self, output: Tensor, contexts: Tensor, operand: Tensor, rows: int, outputs: int) -> Tensor:
        """Of a product with some rows of the weight the others had no part in the loss."""
        if rows == outputs:
            return self._see(output, contexts, None, 0)
        stride = self._weight.stride(-1 if self._transposed else -2)
        first = (operand.storage_offset() - self._weight.storage_offset()) // stride
        whole = self._see(F.pad(output, (first, outputs - first - rows)), contexts, None, 0)
        return whole[..., first : first + rows]

    def _groups(self, output: Tensor, contexts: Tensor, ends: list[int]) -> Tensor:
        """Of tokens that are sorted by expert, up to the `ends` of each; what comes behind the last belongs to none."""
        pieces, start = [], 0
        for part, end in enumerate(ends):
            if end > start:
                pieces.append(self._see(output[start:end], contexts[start:end], None, part))
            start = max(start, end)
        return torch.cat([*pieces, output[start:]])

    def _see(self, output: Tensor, contexts: Tensor, walk: Geometry | None, part: int) -> Tensor:
        seen = self._observer.see(output, contexts, walk, part)
        return output if seen is None else seen


class _Product(NamedTuple):
    """A call of a function that multiplies contexts with an operand."""

    contexts: Tensor
    operand: Tensor
    is_right_factor: bool = True
    walk: Geometry | None = None
    ends: Tensor | None = None


def _linear(input: Tensor, weight: Tensor, bias: Any = None) -> _Product:
    return _Product(input, weight, is_right_factor=False)


def _matmul(input: Any, other: Any, *_: Any, **__: Any) -> _Product | None:
    return _Product(input, other) if isinstance(input, Tensor) and isinstance(other, Tensor) else None


def _mm(input: Tensor, mat2: Tensor, *_: Any, **__: Any) -> _Product:
    return _Product(input, mat2)


def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *_: Any, **__: Any) -> _Product:
    return _Product(mat1, mat2)


def _baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *_: Any, **__: Any) -> _Product:
    return _Product(batch1, batch2)


def _grouped_mm(input: Tensor, mat2: Tensor, offs: Tensor | None = None, *_: Any, **__: Any) -> _Product | None:
    return None if offs is None or input.ndim != 2 else _Product(input, mat2, ends=offs)


def _convolution(input: Tensor, weight: Tensor, *rest: Any, **named: Any) -> _Product:
    return _Product(input, weight, walk=geometry_of_call(weight, *rest, **named))


_PRODUCTS: dict[str, Callable[..., _Product | None]] = {
    "linear": _linear,
    "matmul": _matmul,
    "__matmul__": _matmul,
    "mm": _mm,
    "bmm": _mm,
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    "grouped_mm": _grouped_mm,
    "_grouped_mm": _grouped_mm,
    "conv1d": _convolution,
    "conv2d": _convolution,
}
"""By name of the function: which of its arguments are contexts, and which may be the weight."""

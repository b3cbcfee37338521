"""Where a weight meets its contexts: the places in a model at which inputs and outputs of a weight can be seen.

Most weights stand in a layer that multiplies its only argument with them, so that a hook on the layer sees both. Elsewhere
(subclasses with a `forward` of their own, the experts of a mixture, parameters of any module) the weight is watched
through the functions that take it while its module runs (`cegm.context.products`), so that what is seen is what met the
weight, whatever the module's arguments, padding or output look like.

Modules know their observers weakly and forget them when they go. A copied or pickled model takes a copy of the observer
along, for an optimizer that is copied with it; without one that copy is gone at once.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.hooks import RemovableHandle

from cegm.context.functions import Functions, Weight, is_watched
from cegm.context.patches import Geometry, geometry
from cegm.sharding import is_sharded

CHANGED = "another hook changed what its layer gives before it could be seen"


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
    """What a tap tells: `cegm.context.recorder.Recorder` for an optimizer, and its like for an explanation."""

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

    def lose(self, why: str) -> None:
        """Is told that a product with the weight, in the call that runs now, cannot be seen, and why."""

    def turn(self, transposed: bool) -> bool:
        """Is told that the module multiplies with a weight that is stored so; whether it wants to see it so, not as was said."""
        return False

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
    watches = _watches_of_layer(place.module) if is_plain(place) else _watches_of_call(place.module)
    handle = RemovableHandle(watches)
    watches[handle.id] = Watch(observer, place, transposed)
    observer.hold([handle])


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


class Watch(Weakly):
    """An observer of a weight of one module.

    Attributes:
        place: Where the weight is.
        transposed: It is stored (inputs, outputs), as far as is known.
    """

    def __init__(self, observer: Observer, place: Place, transposed: bool) -> None:
        super().__init__(observer)
        self.place, self.transposed = place, transposed

    def listening(self, module: nn.Module) -> Observer | None:
        """The observer, if it wants to see a call of the module that begins now, or of a shallow copy of it."""
        observer: Observer | None = self.observer
        if observer is None or not observer.listens(module):
            return None
        if torch.compiler.is_compiling():
            return observer
        place = self.place if module is self.place.module else self.place._replace(module=module)
        return observer if observer.is_there(place) and not is_watched(observer) else None


class _Watches(OrderedDict[int, Watch]):
    """The watches of one module; what shows them its calls goes with the last of them."""

    shown: RemovableHandle | _Call

    def __delitem__(self, key: int) -> None:
        super().__delitem__(key)
        if not self:
            self.shown.remove()


# ---------------------------------------------------------------------- plain layers

_LAYER = "_cegm_layer"
"""Attribute of a plain layer that holds its watches."""


def _watches_of_layer(layer: nn.Module) -> _Watches:
    watches: _Watches | None = vars(layer).get(_LAYER)
    if not watches:
        watches = vars(layer)[_LAYER] = _Watches()
        # Before other hooks, which may change the output.
        watches.shown = layer.register_forward_hook(_see_layer, prepend=True, with_kwargs=True)
    return watches


def _see_layer(module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> Any:
    """On a plain layer; a function, because TorchScript compiles no other hooks."""
    result = None
    for watch in getattr(module, _LAYER).values():
        observer = watch.listening(module)
        if observer is None:
            continue
        if not _is_product(module, inputs, named, output):
            observer.lose(CHANGED)
            continue
        seen = observer.see(output, layer_input(inputs, named), geometry(module), 0)
        if seen is not None:
            result = output = seen
    return result


def _see_nothing(module, inputs: tuple[Tensor], output: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    return output


_see_layer.__wrapped__ = _see_nothing  # type: ignore[attr-defined]  # what TorchScript compiles in its place


def _is_product(module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> bool:
    """Whether no other hook has changed the output of a layer before ours saw it."""
    if next(iter(module._forward_hooks.values())) is _see_layer and not torch_module._global_forward_hooks:
        return True
    if torch.compiler.is_compiling() or not isinstance(output, Tensor):
        return False
    with torch.no_grad():
        return torch.equal(output, type(module).forward(module, *inputs, **named))


# ---------------------------------------------------------------------- other modules

_CALL = "_call_impl"
"""Method of a module that runs its hooks and `forward`. Hooks themselves could not clean up after a KeyboardInterrupt."""


def _watches_of_call(module: nn.Module) -> _Watches:
    call = vars(module).get(_CALL)
    if not isinstance(call, _Call):
        call = vars(module)[_CALL] = _Call(module)
    return call.watches


class _Call:
    """A call of a module, while which functions that take its weights are seen."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.watches = _Watches()
        self.watches.shown = self

    def __call__(self, *args: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return type(self._module)._call_impl(self._module, *args, **named)
        module = self._called(sys._getframe(1).f_locals.get("self"))
        listening = [(watch, watch.listening(module)) for watch in self.watches.values()]
        weights = [Weight(watch, observer, module) for watch, observer in listening if observer is not None]
        with Functions(weights) if weights else contextlib.nullcontext():
            return type(module)._call_impl(module, *args, **named)

    def _called(self, caller: Any) -> nn.Module:
        """The module that is called: a shallow copy, such as DataParallel's replicas, shares this object."""
        return caller if isinstance(caller, nn.Module) and vars(caller).get(_CALL) is self else self._module

    def remove(self) -> None:
        """Gives the module its own method back."""
        if vars(self._module).get(_CALL) is self:
            del vars(self._module)[_CALL]

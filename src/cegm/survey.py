"""What stands where in a model: who holds a parameter, what is around a module, which block it is in.

It answers what a weight does from the structure alone: no forward pass is run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cegm.context.taps import Place

WRAPPERS = {
    "default", "modules_to_save", "original_module", "base_layer", "base_model", "module", "model",
    "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
}  # fmt: skip
"""Words in the name of a module that stand for something wrapped around it, or for an adapter."""

PARAMETRIZED = "parametrizations"
"""Where torch keeps what a parametrized weight is made of, under the weight's own name."""


class Holder(NamedTuple):
    """A module that holds a parameter."""

    name: str
    module: nn.Module
    attribute: str

    @property
    def words(self) -> list[str]:
        """The name of the module, word by word, without wrappers and numbers."""
        return [word for word in self.name.split(".") if word not in WRAPPERS and not word.isdigit()]

    @property
    def word(self) -> str:
        """What the module is called."""
        return self.words[-1] if self.words else ""

    @property
    def has_name(self) -> bool:
        """Whether somebody has called the module something: not where numbers and what is around the model are all it has."""
        return bool(self.words) or "model" in self.name.split(".")

    @property
    def multiplies(self) -> bool:
        """Whether the parameter is the weight of a layer, or what it is made of: not a gain, a bias or a parameter by itself."""
        is_made_of = self.words[-2:-1] == [PARAMETRIZED] and self.attribute.startswith("original")
        attribute = self.word if is_made_of else self.attribute
        is_weight = attribute.startswith("weight") or attribute.endswith("_weight")
        return is_weight and "norm" not in type(self.module).__name__.lower()


class Survey:
    """Of one model.

    Attributes:
        modules: All of them by name, in the order in which the model registers them.
        holders: For each parameter who holds it; several when it is tied.

    Raises:
        ValueError: A lazy parameter has no shape yet.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self._parents = {child: parent for parent in self.modules.values() for child in parent.children()}
        self._names = {module: name for name, module in self.modules.items()}
        self._blocks: dict[nn.Module, nn.Module | None] = {}
        self.holders: dict[Tensor, list[Holder]] = defaultdict(list)
        for name, module in self.modules.items():
            for attribute, parameter in module.named_parameters(recurse=False):
                if is_lazy(parameter):
                    full = f"{name}.{attribute}" if name else attribute
                    raise ValueError(
                        f"{full} has no shape yet (lazy module): run one forward pass first, then build CEGM"
                    )
                self.holders[parameter].append(Holder(name, module, attribute))

    def name(self, module: nn.Module) -> str:
        """Where a module stands."""
        return self._names[module]

    def parent(self, module: nn.Module) -> nn.Module | None:
        """The module that holds one."""
        return self._parents.get(module)

    def ancestors(self, module: nn.Module) -> Iterator[nn.Module]:
        """Modules around one, the nearest first."""
        while module in self._parents:
            module = self._parents[module]
            yield module

    def place(self, holder: Holder) -> Place:
        """Where the parameter is used: by the module around, if it lies in a list or a dictionary of parameters, which never runs."""
        module, path = holder.module, holder.attribute
        while isinstance(module, (nn.ParameterList, nn.ParameterDict)) and module in self._parents:
            path = f"{self._names[module].rpartition('.')[2]}.{path}"
            module = self._parents[module]
        return Place(module, path)

    def is_inside_attention(self, holder: Holder) -> bool:
        """Whether it is the output projection of `nn.MultiheadAttention`, which uses the weight without calling the layer."""
        parent = self._parents.get(holder.module)
        return isinstance(parent, nn.MultiheadAttention) and parent.out_proj is holder.module

    def block(self, module: nn.Module) -> nn.Module | None:
        """The nearest element of a list, or of a container of modules of its own kind, as the layers of a transformer are."""
        if module not in self._blocks:
            chain = (each for each in (module, *self.ancestors(module)) if self._is_element(each))
            self._blocks[module] = next(chain, None)
        return self._blocks[module]

    def _is_element(self, module: nn.Module) -> bool:
        around = self._parents.get(module)
        if isinstance(around, nn.ModuleList):
            return True
        if not isinstance(around, (nn.Sequential, nn.ModuleDict)) or not any(True for _ in module.children()):
            return False
        return any(each is not module and is_like(each, module) for each in around.children())

    def twins(self, layer: nn.Module) -> Iterator[nn.Module]:
        """The layers that stand in the other blocks where this one stands in its own."""
        block = self.block(layer)
        around = self._parents.get(block) if block is not None else None
        if block is None or block is layer or around is None:
            return
        path = self._names[layer].removeprefix(f"{self._names[block]}.")
        for other in around.children():
            name = f"{self._names.get(other, '')}.{path}"
            if other is not block and name in self.modules:
                yield self.modules[name]

    # ------------------------------------------------------------------ weight decay

    @cached_property
    def marked(self) -> set[Tensor]:
        """Parameters that the model itself wants without weight decay."""
        return set(_marked(self.modules.values()))


def is_like(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules are of the same kind, with weights of the same names."""
    return type(one) is type(other) and [n for n, _ in one.named_parameters()] == [
        n for n, _ in other.named_parameters()
    ]


def _marked(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Parameters without weight decay by the model's own word, as timm's and Mamba's models give it."""
    for module in modules:
        yield from (p for p in module.parameters(recurse=False) if getattr(p, "_no_weight_decay", False))
        said, keywords = _said(module, "no_weight_decay"), _said(module, "no_weight_decay_keywords")
        yield from (each for each in said if isinstance(each, Tensor))
        if any(each is True for each in said):
            yield from module.parameters()
        names = {_bare(each) for each in said if isinstance(each, str)} - {""}
        words = [each for each in keywords if isinstance(each, str) and each]
        below = tuple(f"{name}." for name in names)
        for name, parameter in module.named_parameters() if names or words else ():
            bare = _bare(name)
            if bare in names or bare.startswith(below) or any(word in name for word in words):
                yield parameter


def _said(module: nn.Module, name: str) -> list[Any]:
    """What a module says under a name: nothing, one word, several, or a method that returns them."""
    said: Any = getattr(module, name, None)
    if isinstance(said, Callable):  # type: ignore[arg-type]
        try:
            said = said()
        except (TypeError, AttributeError, NotImplementedError):  # a method for something else: it wants arguments
            return []
    if isinstance(said, (str, bool, Tensor)):
        return [said] if said is not False else []
    return list(said) if isinstance(said, (Mapping, Iterable)) else []


def _bare(name: str) -> str:
    """The name of a parameter without what is wrapped around its modules."""
    return ".".join(word for word in name.split(".") if word not in WRAPPERS)

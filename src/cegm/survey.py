"""What stands where in a model: who holds a parameter, what could stand behind a layer, which sizes are vocabularies.

It answers what a weight does from the structure alone: no forward pass is run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from cegm.context.taps import is_transposed
from cegm.fused import GATE_UP, QUERY_KEY_VALUE

WRAPPERS = {
    "default", "modules_to_save", "original_module", "base_layer", "module", "model",
    "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
}  # fmt: skip
"""Words in the name of a module that stand for something wrapped around it, or for an adapter."""

HEAD_NAMES = {
    "lm_head", "head", "fc", "classifier", "score", "qa_outputs", "output", "output_projection", "proj_out",
    "embed_out", "unembed", "logits", "to_logits",
}  # fmt: skip
"""What an output head is called whose number of classes stands nowhere in the model."""

ROUTER_NAMES = {"router", "gate", "wg"}
"""What a router is called whose experts are out of sight."""

CLASS_COUNTS = ("vocab_size", "num_labels", "num_classes")
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "n_experts", "moe_num_experts")


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
    def multiplies(self) -> bool:
        """Whether the parameter is the weight of a layer, not a gain, a bias or a parameter by itself."""
        is_weight = self.attribute.startswith("weight") or self.attribute.endswith("_weight")
        return is_weight and "norm" not in type(self.module).__name__.lower()


class Survey:
    """Of one model.

    Attributes:
        holders: For each parameter who holds it; several when it is tied.
        marked: Parameters that the model itself wants without weight decay.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = dict(model.named_modules())
        self._parents = {child: parent for parent in self._modules.values() for child in parent.children()}
        self.holders: dict[Tensor, list[Holder]] = defaultdict(list)
        for name, module in self._modules.items():
            for attribute, parameter in module.named_parameters(recurse=False):
                self.holders[parameter].append(Holder(name, module, attribute))
        self.marked = set(_marked(self._modules.values()))
        self._linear = [module for module in self._modules.values() if _sides(module) is not None]
        self._takers = Counter(_takes(self._modules.values()))
        self._class_counts = set(_class_counts(self._modules))
        self._heads = dict(_named_heads(self._modules.values()))

    def ancestors(self, module: nn.Module) -> Iterator[nn.Module]:
        """Modules around one, the nearest first."""
        while module in self._parents:
            module = self._parents[module]
            yield module

    def is_inside_attention(self, holder: Holder) -> bool:
        """Whether it is the output projection of `nn.MultiheadAttention`, which uses the weight without calling the layer."""
        parent = self._parents.get(holder.module)
        return isinstance(parent, nn.MultiheadAttention) and parent.out_proj is holder.module

    # ------------------------------------------------------------------ heads

    def is_head(self, holder: Holder, outputs: int) -> bool:
        """Whether a layer makes the model's outputs.

        The model names it (`get_output_embeddings`, `get_classifier`), or it has as many outputs as there are words or
        classes and nothing behind it. A projection that stacks weights is cut behind its outputs, so nothing takes as
        many either; neither that nor a layer of a repeated block is a head.
        """
        if self._heads.get(holder.module) == outputs:
            return True
        if outputs not in self._class_counts or holder.word in QUERY_KEY_VALUE | GATE_UP:
            return False
        return not self._is_repeated(holder.module) and self._has_nothing_behind(holder.module, outputs)

    def is_called_head(self, holder: Holder, outputs: int) -> bool:
        """Whether a layer is called so, and nothing takes as many numbers as it gives: where no number of classes is known."""
        return holder.word in HEAD_NAMES and not self._takers[outputs] and not self._is_repeated(holder.module)

    def _has_nothing_behind(self, module: nn.Module, outputs: int) -> bool:
        """Nothing else takes as many numbers; where something does, the last layer of all has nothing behind it."""
        sides = _sides(module)
        own = int(sides is not None and sides[1] == outputs)
        return self._takers[outputs] == own or self._linear[-1:] == [module]

    def _is_repeated(self, module: nn.Module) -> bool:
        """Whether it stands in a block out of a list, or beside siblings of its own kind, as the layers of a transformer do."""
        for block in self.ancestors(module):
            around = self._parents.get(block)
            if isinstance(around, nn.ModuleList):
                return True
            is_list = isinstance(block, (nn.ModuleList, nn.ModuleDict))
            siblings = around.children() if isinstance(around, (nn.Sequential, nn.ModuleDict)) and not is_list else ()
            if any(type(sibling) is type(block) and sibling is not block for sibling in siblings):
                return True
        return False

    # ------------------------------------------------------------------ mixtures of experts

    def is_router(self, holder: Holder, outputs: int) -> bool:
        """Whether a layer has an output for each expert beside it; or is called so, and nothing takes what it gives."""
        near = list(self.ancestors(holder.module))[:2]
        if any(outputs in self._stacked_experts(module) for module in near):
            return True
        is_router = holder.word in ROUTER_NAMES or any(outputs in _listed_experts(module) for module in near)
        return is_router and not self._takers[outputs]

    def _stacked_experts(self, module: nn.Module) -> Iterator[int]:
        """Numbers of experts that a module or its children stack in parameters."""
        for child in [module, *module.children()]:
            for attribute, parameter in child.named_parameters(recurse=False):
                if self.are_experts(Holder("", child, attribute), parameter):
                    yield parameter.shape[0]

    def are_experts(self, holder: Holder, parameter: Tensor) -> bool:
        """Whether a parameter stacks matrices: as many as its module counts experts, or beside a batch of as many that shares a side."""
        if parameter.ndim != 3 or 1 in parameter.shape or isinstance(holder.module, nn.modules.conv._ConvNd):
            return False
        count = parameter.shape[0]
        if any(getattr(holder.module, name, None) == count for name in EXPERT_COUNTS):
            return True
        return any(set(parameter.shape[1:]) & set(other.shape[1:]) for other in self._stacks_beside(holder, parameter))

    def _stacks_beside(self, holder: Holder, parameter: Tensor) -> list[Tensor]:
        """The other batches of as many matrices in the same module."""
        others = holder.module.parameters(recurse=False)
        return [p for p in others if p.ndim == 3 and len(p) == len(parameter) and p is not parameter]

    def stores_inputs_first(self, holder: Holder, parameter: Tensor) -> bool:
        """Whether each expert is stored (inputs, outputs): the module says so, or the first of its batches takes the model's width there."""
        said = getattr(holder.module, "is_transposed", None)
        if isinstance(said, bool):
            return said
        stacks = (p for p in holder.module.parameters(recurse=False) if p.ndim == 3)
        _, rows, columns = next(stacks, parameter).shape
        return self._is_width(rows) and not self._is_width(columns)

    def _is_width(self, size: int) -> bool:
        """Whether an embedding or a norm of the model has this width."""
        return any(
            getattr(module, "embedding_dim", None) == size or tuple(getattr(module, "normalized_shape", ())) == (size,)
            for module in self._modules.values()
        )

    def stacks_gate_and_up(self, holder: Holder, parameter: Tensor, outputs: int) -> bool:
        """Whether each expert stacks its gate on its up projection, one behind the other: transformers' experts say so."""
        halves = holder.attribute in GATE_UP and getattr(holder.module, "is_concatenated", False) is True
        return halves and any(
            outputs == 2 * size for p in self._stacks_beside(holder, parameter) for size in p.shape[1:]
        )


def _listed_experts(module: nn.Module) -> Iterator[int]:
    """Lengths of the lists of modules of one kind in a module."""
    for child in module.children():
        members = list(child.children()) if isinstance(child, (nn.ModuleList, nn.ModuleDict)) else []
        if len(members) > 1 and len({type(member) for member in members}) == 1:
            yield len(members)


def _sides(module: nn.Module) -> tuple[int, int] | None:
    """(outputs, inputs) of a layer that multiplies; None for any other module."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return module.out_channels, module.in_channels
    if is_transposed(module):
        weight: Any = module.weight
        return weight.shape[1], weight.shape[0]
    return None


def _takes(modules: Iterable[nn.Module]) -> Iterator[int]:
    """How many numbers each layer and each norm takes."""
    for module in modules:
        sides, weight = _sides(module), getattr(module, "weight", None)
        if sides is not None:
            yield sides[1]
        elif isinstance(module, nn.MultiheadAttention):
            yield module.embed_dim
        elif isinstance(weight, Tensor) and weight.ndim == 1:
            yield len(weight)


def _class_counts(modules: dict[str, nn.Module]) -> Iterator[int]:
    """Numbers of words or classes: as configurations have them, elsewhere as embeddings do."""
    configured = []
    for name, module in modules.items():
        config = getattr(module, "config", None)
        found = [value for source in (config, module) for value in _counts(source, CLASS_COUNTS)]
        yield from found
        if config is not None and found:
            configured.append(f"{name}." if name else "")
    for name, module in modules.items():
        if isinstance(module, nn.Embedding) and not any(name.startswith(prefix) for prefix in configured):
            yield module.num_embeddings


def _counts(source: Any, names: Iterable[str]) -> Iterator[int]:
    values = (getattr(source, name, None) for name in names)
    return (value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 1)


def _named_heads(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, int]]:
    """The layers inside what a model calls its output embeddings or classifier, and how many outputs its last one has."""
    for module in modules:
        for ask in ("get_output_embeddings", "get_classifier"):
            try:
                head = getattr(module, ask)()
            except (AttributeError, NotImplementedError, TypeError):
                continue
            inside = [layer for layer in head.modules() if _sides(layer)] if isinstance(head, nn.Module) else []
            for layer in inside:
                yield layer, (_sides(inside[-1]) or (0, 0))[0]


def _marked(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """Parameters without weight decay by the model's own word, as timm's and Mamba's models give it."""
    for module in modules:
        yield from (p for p in module.parameters(recurse=False) if getattr(p, "_no_weight_decay", False))
        said: Any = getattr(module, "no_weight_decay", None)
        names = tuple(said() if callable(said) else said or ())
        if names:
            below = tuple(f"{name}." for name in names)
            yield from (p for name, p in module.named_parameters() if name in names or name.startswith(below))

"""Mixtures of experts: which parameters are batches of matrices, how each is stored, and which layers choose among them.

Two parameters of the same shape are no experts yet: prefix tables, time constants and the heads of an attention are
batches too. A mixture says so itself: it counts its experts, has them in its name, or holds batches of which one takes
what the other gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from cegm.fused import GATE_UP
from cegm.model_facts import configurations, numbers
from cegm.sides import gives, sides
from cegm.survey import Holder, Survey

ROUTER_NAMES = {"gate", "wg"}
"""What a router is called whose experts are out of sight, if nothing in its path says `router`."""

COUNTS_EXPERTS = re.compile(r"expert(?!.*(per_tok|top|dim|size|width|layer|freq|step|interval|capacity|group|hidden))")
"""Names of attributes that count experts."""

OF_EXPERTS = re.compile(r"expert", re.IGNORECASE)
"""Names of modules, classes and parameters that hold experts."""

COUNTS_HEADS = re.compile(r"head")
"""Names of attributes that count the heads of an attention, which has batches of as many matrices."""

ADDED = re.compile(r"bias|embed|pos|norm|scale|log|prefix|prompt|token|table|gain")
"""Names of parameters that are added or scale, whatever their shape."""

GIVES = re.compile(r"down|out|w2|fc2|wo|^o_")
"""Names of the projections that give what the mixture gives; the others take what it takes."""

SIZES = (
    ("output_size", "input_size"),
    ("out_features", "in_features"),
    ("output_dim", "input_dim"),
    ("out_dim", "in_dim"),
    ("d_out", "d_in"),
)
"""What a module that holds one batch calls the outputs and inputs of its matrices."""


class Mixtures:
    """Of one model."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        modules = survey.modules.values()
        norms = (m for m in modules if sides(m) is None and not isinstance(m, nn.Embedding))
        self._widths = {m.embedding_dim for m in modules if isinstance(m, nn.Embedding)}
        self._widths |= {size for m in norms if (size := gives(m)) is not None}
        self._takers = {side[1] for m in modules if (side := sides(m)) is not None}
        self._near: dict[nn.Module, set[tuple[int, int]]] = {}

    # ------------------------------------------------------------------ routers

    def is_router(self, holder: Holder, outputs: int, inputs: int) -> bool:
        """Whether a layer has an output for each expert near it, or is called so, and none beside it takes what it gives."""
        around = list(self._survey.ancestors(holder.module))[:2]
        layers = [side for each in (around[0].children() if around else ()) if (side := sides(each)) is not None]
        if sides(holder.module) is not None and any(side[1] == outputs for side in layers if side != (outputs, inputs)):
            return False
        # An attention beside a mixture is no router, though one of its projections may have as many outputs.
        near = around if len(layers) == 1 else around[:1]
        if any((outputs, inputs) in self._experts_near(module) for module in near):
            return True
        if not _is_called_router(holder.words[-3:]):
            return False
        counted = {count for module in around[:1] for count in _counted(module)}
        return outputs in counted or outputs not in self._takers

    def _experts_near(self, module: nn.Module) -> set[tuple[int, int]]:
        """(experts, what they take) of the mixtures that a module or its children hold."""
        if module not in self._near:
            found = {pair for each in (module, *module.children()) for pair in self._experts_in(each)}
            self._near[module] = found | {pair for child in module.children() for pair in _listed(child)}
        return self._near[module]

    def _experts_in(self, module: nn.Module) -> Iterator[tuple[int, int]]:
        for attribute, parameter in module.named_parameters(recurse=False):
            holder = Holder(self._survey.name(module), module, attribute)
            count = len(parameter) if self.are_experts(holder, parameter) else flat_experts(holder, parameter)
            if count:
                yield from ((count, size) for size in parameter.shape[1:])

    # ------------------------------------------------------------------ batches of matrices

    def are_experts(self, holder: Holder, parameter: Tensor) -> bool:
        """Whether a parameter stacks matrices, (experts, ., .): a mixture says so, or its batches follow one another."""
        if parameter.ndim != 3 or 1 in parameter.shape[1:] or isinstance(holder.module, nn.modules.conv._ConvNd):
            return False
        if ADDED.search(holder.attribute.lower()):
            return False
        if self._is_called_mixture(holder) or self._is_counted(holder, len(parameter)):
            return True
        if len(parameter) < 2 or len(parameter) in self._widths:
            return False
        return self._follows(holder, parameter) or self._is_routed(holder, parameter)

    def _is_called_mixture(self, holder: Holder) -> bool:
        return any(OF_EXPERTS.search(name) for name in (holder.attribute, holder.word, type(holder.module).__name__))

    def _is_counted(self, holder: Holder, count: int) -> bool:
        """Whether a module counts as many experts; or what is around it and configurations do, and not as many heads."""
        if count in self._widths:
            return False
        around = [holder.module, *self._survey.ancestors(holder.module)][:3]
        sources = [*around[1:], *(source for module in around for source in configurations(module))]
        told = [pair for source in sources for pair in numbers(source)]
        heads = {number for name, number in (*told, *numbers(holder.module)) if COUNTS_HEADS.search(name)}
        experts = {number for name, number in told if COUNTS_EXPERTS.search(name)}
        return count in _counted(holder.module) | (experts - heads)

    def _follows(self, holder: Holder, parameter: Tensor) -> bool:
        """Whether a batch beside it takes what it gives or gives what it takes, and is as wide as the model on the other side."""
        rows, columns = parameter.shape[1:]
        if rows == columns or not {rows, columns} & self._widths:
            return False
        return any(
            (b, a) == (rows, columns) or is_twice((rows, columns), (a, b)) or is_twice((a, b), (rows, columns))
            for a, b in (other.shape[1:] for other in stacks_beside(holder, parameter))
        )

    def _is_routed(self, holder: Holder, parameter: Tensor) -> bool:
        """Whether what is called a router stands beside it, with as many outputs, and takes what the matrices take or give."""
        count, *shape = parameter.shape
        around = [holder.module, *self._survey.ancestors(holder.module)][:2]
        routers = [child for module in around for name, child in module.named_children() if _is_called_router([name])]
        found = (sides(layer) for router in routers for layer in router.modules())
        return any(side is not None and side[0] == count and side[1] in shape for side in found)

    # ------------------------------------------------------------------ how they are stored

    def stores_inputs_first(self, holder: Holder, parameter: Tensor) -> bool:
        """Whether each expert is stored (inputs, outputs): the module says so, or its batches take the model's width there."""
        said = getattr(holder.module, "is_transposed", None)
        if isinstance(said, bool):
            return said
        shape = tuple(parameter.shape[1:])
        for names in SIZES:
            outputs, inputs = (getattr(holder.module, name, None) for name in names)
            if {outputs, inputs} == set(shape) and outputs != inputs:
                return shape == (inputs, outputs)
        stacks = [(name, p) for name, p in holder.module.named_parameters(recurse=False) if p.ndim == 3]
        taking = [p for name, p in stacks if not GIVES.search(name)]
        rows, columns = (taking[0] if taking else parameter).shape[1:]
        if not taking:
            rows, columns = columns, rows
        if (rows in self._widths) != (columns in self._widths):
            return rows in self._widths
        return any(columns == 2 * a and rows == b for a, b in (p.shape[1:] for _, p in stacks))

    def stacks_gate_and_up(self, holder: Holder, parameter: Tensor, outputs: int) -> bool:
        """Whether each expert stacks its gate on its up projection, one behind the other: transformers' experts say so."""
        halves = holder.attribute in GATE_UP and getattr(holder.module, "is_concatenated", False) is True
        return halves and any(
            outputs == 2 * size for other in stacks_beside(holder, parameter) for size in other.shape[1:]
        )


def _is_called_router(words: Sequence[str]) -> bool:
    """By the last word of a path, or any that has `router` in it."""
    return words[-1:] in [[name] for name in ROUTER_NAMES] or any("router" in word.lower() for word in words)


def stacks_beside(holder: Holder, parameter: Tensor) -> list[Tensor]:
    """The other batches of as many matrices in the same module."""
    others = holder.module.parameters(recurse=False)
    return [p for p in others if p.ndim == 3 and len(p) == len(parameter) and p is not parameter]


def is_twice(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether the first gives, gate upon up, twice what the second takes, however both are stored."""
    (rows, columns), (a, b) = one, other
    return (columns == a and rows == 2 * b) or (rows == b and columns == 2 * a)


def flat_experts(holder: Holder, parameter: Tensor) -> int:
    """How many experts stand one below the other in two dimensions; 0 unless the module counts them and the rows of each."""
    if parameter.ndim != 2 or sides(holder.module) is not None or isinstance(holder.module, nn.Embedding):
        return 0
    sizes = {size for name, size in numbers(holder.module) if not COUNTS_EXPERTS.search(name)}
    counts = (count for count in _counted(holder.module) if count > 1 and len(parameter) % count == 0)
    return next((count for count in counts if 1 < len(parameter) // count in sizes), 0)


def _counted(module: nn.Module) -> set[int]:
    """Numbers of experts among the attributes of a module."""
    return {count for name, count in numbers(module) if COUNTS_EXPERTS.search(name)}


def _listed(module: nn.Module) -> Iterator[tuple[int, int]]:
    """(members, what they take) of a list of layers or blocks of one kind; what has no weights is beside them."""
    if not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        return
    members = [each for each in module.children() if any(True for _ in each.parameters())]
    if len(members) > 1 and len({type(member) for member in members}) == 1:
        first = next((side for each in members[0].modules() if (side := sides(each)) is not None), None)
        if first is not None:
            yield len(members), first[1]

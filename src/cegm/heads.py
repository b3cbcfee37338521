"""Which layers make a model's outputs: the model names them, or they have as many outputs as classes and nothing behind them.

What stands behind what is told from the order in which a model registers its modules: a layer takes from the nearest
one before it that gives as many numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import nn

from cegm.fused import GATE_UP, QUERY_KEY_VALUE
from cegm.model_facts import configurations, numbers
from cegm.sides import gives, is_vector, sides, takes
from cegm.survey import Holder, Survey, is_like

HEAD_WORDS = {
    "head",
    "heads",
    "classifier",
    "classifiers",
    "score",
    "logit",
    "logits",
    "unembed",
    "vocab",
    "vocabulary",
}
"""Words in the name of an output head that no other layer has, such as `char_head` or `to_logits`."""

LAST_NAMES = {
    "fc", "linear", "last_linear", "out", "outc", "output", "outputs", "qa_outputs", "output_projection", "proj_out",
    "embed_out", "final", "last", "cls", "pred", "predict", "predictor", "prediction", "predictions", "policy",
    "actor",
}  # fmt: skip
"""What output heads are called, numbers apart, and layers of the body, too: `fc2`."""

COUNTS_CLASSES = re.compile(r"vocab|(^|_)(n|nb|num)_?(\w*_)?(class|label|categor)|classes$|labels$")
"""Names of attributes that count words or classes."""

COUNTS_CODEBOOKS = re.compile(r"codebook|quantizer|channel|^n_?q$")
"""Names of attributes that count vocabularies side by side."""

OF_PLACES = re.compile(r"pos|type|seg|wpe")
"""Names of embeddings that have no words."""

VOCABULARY, FEWER, MORE, SHARE = 16, 4, 128, 64
"""Words from which a vocabulary may have fewer outputs (words never predicted) or more (padding, or one part in so many)."""

SEVERAL = 16
"""Vocabularies that a head may have side by side though nothing counts them."""


class Heads:
    """Of one model."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        modules = list(survey.modules.values())
        self._embeddings = [module for module in modules if isinstance(module, nn.Embedding)]
        self._takers = Counter(size for module in modules if (size := _takes(module)) is not None)
        self._givers = dict(_givers(modules))
        self._taken = set(self._givers.values())
        self._named = dict(_named(modules))
        counts = set(_counts(modules, COUNTS_CLASSES))
        configured = [name for name, module in survey.modules.items() if _counts_words(module)]
        self._words = {count for name, count in counts if "vocab" in name} | set(_words(survey.modules, configured))
        self._classes = {count for _, count in counts} | self._words
        self._codebooks = {count for _, count in _counts(modules, COUNTS_CODEBOOKS)}
        self._codebooks |= set(Counter(module.num_embeddings for module in self._embeddings).values())
        self._has_several = len(_inside(survey.modules[""])) > 1
        self._last = {layers[-1] for top in self._tops() if len(layers := _inside(top)) > 1}

    def is_named_head(self, holder: Holder, outputs: int) -> bool:
        """Whether the model itself names a layer (`get_output_embeddings`, `get_classifier`)."""
        return self._named.get(holder.module) == outputs

    def is_head(self, holder: Holder, outputs: int) -> bool:
        """Whether a layer has as many outputs as there are words or classes, and nothing behind it.

        A projection that stacks weights is cut behind its outputs, so nothing takes as many either; but a layer of the
        body stands behind it, in its own module or its own block.
        """
        layer = holder.module
        if outputs not in self._classes or _is_stacked(holder):
            return False
        if _is_called_head(holder.word) and (not self._takers[outputs] or sides(layer) == (outputs, outputs)):
            return self._ends_block(layer)
        return not self._is_taken(layer) and self._ends_block(layer) and self._ends_module(layer)

    def is_unmatched_head(self, holder: Holder, outputs: int) -> bool:
        """Whether nothing takes as many numbers as a layer gives, and it is called a head or has nearly as many outputs as there are words."""
        if not self._ends(holder, outputs):
            return False
        block = self._survey.block(holder.module)
        # A list of heads, each a layer or a few: not what stands deep inside of a block, as adapters do.
        is_near = block in (None, holder.module, self._survey.parent(holder.module))
        if not is_near or not self._ends_block(holder.module):
            return False
        if any(map(_is_called_head, holder.words[-2:])) or self._is_vocabulary(outputs):
            return True
        return block is None and self._has_several and holder.word.lower().rstrip("0123456789") in LAST_NAMES

    def may_be_head(self, holder: Holder, outputs: int) -> bool:
        """Whether a layer is the last of a model that has several, has a name, and nothing takes as many numbers as it gives."""
        if not holder.has_name or holder.module not in self._last or not self._ends(holder, outputs):
            return False
        parent = self._survey.parent(holder.module)
        if parent is not None and sum(gives(sibling) == outputs for sibling in parent.children()) > 1:
            return False  # two projections into a space that they share
        return self._survey.block(holder.module) in (None, holder.module) or len(self._last) > 1

    def takes_words(self, holder: Holder, outputs: int, inputs: int) -> bool:
        """Whether a layer takes words, one-hot: more than it has outputs, and nothing but an embedding gives it as many."""
        if inputs < VOCABULARY or inputs <= outputs or inputs not in self._words:
            return False
        giver = self._givers.get(holder.module)
        return giver is None or getattr(giver, "weight", None) in {module.weight for module in self._embeddings}

    # ------------------------------------------------------------------ sizes

    def _is_vocabulary(self, outputs: int) -> bool:
        """Whether it is the size of a vocabulary with padding or without its marks, or of several codebooks."""
        words = [count for count in self._words if count >= VOCABULARY]
        if any(count - FEWER <= outputs < count + max(MORE, count // SHARE) for count in words):
            return True
        each = {count + more for count in words for more in (-1, 0, 1)}
        several = self._codebooks | set(range(2, SEVERAL + 1))
        return any(outputs % size == 0 and outputs // size in several for size in each)

    def _ends(self, holder: Holder, outputs: int) -> bool:
        """Whether nothing in the model takes as many numbers as a layer gives, and no layer of the body stands behind it."""
        if self._takers[outputs] or _is_stacked(holder) or self._is_flattened(holder.module):
            return False
        return self._ends_module(holder.module)

    def _is_taken(self, layer: nn.Module) -> bool:
        """Whether something takes what it gives, or what the same layer of a block like its own gives."""
        return any(twin in self._taken for twin in (layer, *self._survey.twins(layer)))

    def _is_flattened(self, layer: nn.Module) -> bool:
        """Whether a linear layer takes the channels of a convolution at several positions."""
        channels = layer.out_channels if isinstance(layer, nn.modules.conv._ConvNd) else 0
        linear = (module.in_features for module in self._survey.modules.values() if isinstance(module, nn.Linear))
        return bool(channels) and any(size % channels == 0 for size in linear)

    def _ends_block(self, layer: nn.Module) -> bool:
        """Whether no other layer of its block stands behind it, if it is in one."""
        block = self._survey.block(layer)
        return block is None or _inside(block)[-1:] == [layer]

    def _ends_module(self, layer: nn.Module) -> bool:
        """Whether no layer of the body stands behind it in its own module, up to the next embedding."""
        parent = self._survey.parent(layer)
        if parent is None or isinstance(parent, (nn.ModuleList, nn.ModuleDict)):
            return True
        siblings = list(parent.children())
        for sibling in siblings[siblings.index(layer) + 1 :]:
            if isinstance(sibling, nn.Embedding):
                return True
            if sides(sibling) and not is_vector(sibling) and self._takers[gives(sibling) or 0]:
                return False
        return True

    def _tops(self) -> Iterator[nn.Module]:
        """The model, and models of one kind if it is made of nothing else, as an ensemble is."""
        module = self._survey.modules[""]
        yield module
        children = [module]
        while len(children) == 1:
            children = [child for child in children[0].children() if any(True for _ in child.parameters())]
        if len(children) > 1 and all(_inside(child) and is_like(child, children[0]) for child in children):
            yield from children


def _inside(module: nn.Module) -> list[nn.Module]:
    """The layers in a module that have several outputs."""
    return [each for each in module.modules() if sides(each) and not is_vector(each)]


def _is_stacked(holder: Holder) -> bool:
    return holder.word in QUERY_KEY_VALUE | GATE_UP


def _is_called_head(name: str) -> bool:
    return not HEAD_WORDS.isdisjoint(re.split(r"[_\d]+", name.lower()))


def _takes(module: nn.Module) -> int | None:
    """How many numbers something takes whose outputs could go on: the head of a value takes what other heads take."""
    return None if is_vector(module) else takes(module)


def _givers(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, nn.Module]]:
    """What takes and from which it takes: the nearest before it that gives as many numbers."""
    givers: dict[int, nn.Module] = {}
    for module in modules:
        taken, given = _takes(module), gives(module)
        if taken in givers:
            yield module, givers[taken]
        if given is not None:
            givers[given] = module


def _counts(modules: Iterable[nn.Module], names: re.Pattern[str]) -> Iterator[tuple[str, int]]:
    """Numbers above 1 that modules and their configurations have under such names."""
    for module in modules:
        for source in (module, *configurations(module)):
            yield from ((name, count) for name, count in numbers(source) if count > 1 and names.search(name))


def _counts_words(module: nn.Module) -> bool:
    return any("vocab" in name for source in configurations(module) for name, _ in numbers(source))


def _words(modules: Mapping[str, nn.Module], configured: Sequence[str]) -> Iterator[int]:
    """Sizes of the embeddings of words, where no configuration around them has that number."""
    around = tuple(f"{name}." if name else "" for name in configured)
    for name, module in modules.items():
        has_words = isinstance(module, nn.Embedding) and not OF_PLACES.search(name.rpartition(".")[2])
        if isinstance(module, nn.Embedding) and has_words and not name.startswith(around):
            yield module.num_embeddings


def _named(modules: Iterable[nn.Module]) -> Iterator[tuple[nn.Module, int]]:
    """The layers inside what a model calls its output embeddings or classifiers, and how many outputs their last ones have."""
    for module in modules:
        for ask in ("get_output_embeddings", "get_classifier"):
            try:
                answer = getattr(module, ask)()
            except (AttributeError, NotImplementedError, TypeError):
                continue
            heads = answer.values() if isinstance(answer, Mapping) else answer
            for head in heads if isinstance(heads, Iterable) and not isinstance(heads, nn.Module) else [heads]:
                inside = [each for each in head.modules() if sides(each)] if isinstance(head, nn.Module) else []
                yield from ((layer, (sides(inside[-1]) or (0, 0))[0]) for layer in inside)

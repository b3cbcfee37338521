"""Rows of tokens that begin alike, read once: a tree in which every token sees its own beginning and nothing else.

A pass reads the tokens of many rows one behind the other, without padding. A mask hides from each what is no part of its row, and its position
is its place in the row, so that it gets the logits that it would get if the row were read alone. Keys and values are kept: a tree grows.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

PROBE = ((1, 2, 3, 4, 5, 6), (1, 2, 3, 6), (2, 3, 4))
"""Rows that show whether a model can read a tree."""

CLOSE = 1e-3
"""Logits of a tree and of a row read alone that differ by less are the same."""

WINDOWED = "sliding_attention"


class Tree:
    """What a model has read after a context; nodes are numbered in the order in which they were added.

    Args:
        model: Causal, in evaluation mode, and one that `reads_trees`.
        context: Tokens before all rows; read at once, as a row of its own.

    Attributes:
        depths: Place of each node in its row, from 0.
    """

    def __init__(self, model: nn.Module, context: Sequence[int] = ()) -> None:
        self.model, self.context, self.cache = model, len(context), DynamicCache()
        self.depths: list[int] = []
        self._tokens: list[int] = []
        self._seen: list[np.ndarray[Any, Any]] = []  # of each node, which of the nodes up to it it sees
        self._places: dict[tuple[int, int], int] = {}  # node and token -> node that follows
        self._read = 0
        if context:
            self._forward([context], logits_to_keep=1)

    def __len__(self) -> int:
        return len(self._tokens)

    def missing(self, row: Sequence[int]) -> int:
        """Tokens of a row that are not in the tree."""
        node = -1
        for place, token in enumerate(row):
            if (node := self._places.get((node, token), -1)) < 0:
                return len(row) - place
        return 0

    def add(self, row: Sequence[int], anew: bool = False) -> list[int]:
        """Nodes of a row's tokens; those that are not there yet will be read. `anew`: so will the last one, which may have been."""
        node, path = -1, []
        for depth, token in enumerate(row):
            known = self._places.get((node, token))
            if known is None or (anew and depth == len(row) - 1):
                known = self._places[node, token] = len(self._tokens)
                before = self._seen[node] if node >= 0 else np.zeros(0, bool)
                seen = np.zeros(known + 1, bool)
                seen[: len(before)], seen[known] = before, True
                self._tokens.append(token)
                self._seen.append(seen)
                self.depths.append(depth)
            node = known
            path.append(node)
        return path

    def read(self, wanted: Sequence[int]) -> Tensor:
        """Reads all that is new, and gives logits, (wanted, vocabulary), of some new nodes."""
        first, self._read = self._read, len(self._tokens)
        answer = self._forward(
            [self._tokens[first:]],
            position_ids=self._tensor([[depth + self.context for depth in self.depths[first:]]]),
            attention_mask=self._masks(first),
            logits_to_keep=self._tensor([node - first for node in wanted]),
        )
        logits: Tensor = answer.logits[0]
        return logits

    def _masks(self, first: int) -> Tensor | dict[str, Tensor]:
        """What is added to the attention of nodes from `first` on, (1, 1, new, all): by kind of layer where there are two."""
        seen = np.zeros((len(self) - first, self.context + len(self)), bool)
        seen[:, : self.context] = True
        for row, each in zip(seen, self._seen[first:], strict=True):
            row[self.context : self.context + len(each)] = each
        window, kinds = _window(self.model)
        if window is None:
            return self._mask(seen)
        places = np.concatenate([np.arange(self.context), np.array(self.depths) + self.context])
        near = seen & (places[self.context + first :, None] - places < window)
        masks = {"full_attention": seen, WINDOWED: near}
        return {kind: self._mask(masks[kind]) for kind in kinds} if len(kinds) > 1 else self._mask(near)

    def _mask(self, seen: np.ndarray[Any, Any]) -> Tensor:
        dtype = next(self.model.parameters()).dtype
        return torch.where(self._tensor(seen), 0.0, torch.finfo(dtype).min).to(dtype)[None, None]

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(np.asarray(values)).to(next(self.model.parameters()).device)

    @torch.no_grad()
    def _forward(self, rows: Sequence[Sequence[int]], **more: Any) -> Any:
        return self.model(input_ids=self._tensor(rows), past_key_values=self.cache, use_cache=True, **more)


def _window(model: Any) -> tuple[int | None, set[str]]:
    """How many tokens back a layer of a model sees, None for all, and which kinds of layers it has."""
    window, kinds = getattr(model.config, "sliding_window", None), set(getattr(model.config, "layer_types", None) or ())
    return (window if not kinds or WINDOWED in kinds else None), kinds


@torch.no_grad()
def reads_trees(model: nn.Module) -> bool:
    """Whether a model gives a row the same logits in a tree as alone: tried, since masks, positions and caches are any model's own affair."""
    wanted = {"position_ids", "attention_mask", "past_key_values", "logits_to_keep"}
    if not wanted <= set(inspect.signature(model.forward).parameters) or getattr(model, "_is_stateful", False):
        return False
    try:
        tree = Tree(model, PROBE[0][:1])
        paths = [tree.add(row) for row in PROBE]
        found = tree.read([path[-1] for path in paths])
        for row, logits in zip(PROBE, found, strict=True):
            whole = torch.tensor([PROBE[0][:1] + row], device=logits.device)
            alone = model(input_ids=whole, use_cache=False).logits[0, -1]
            if not torch.allclose(logits, alone, rtol=CLOSE, atol=CLOSE):
                return False
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    return True


def packs(rows: Sequence[Sequence[int]], tokens: int) -> Iterator[tuple[list[int], int]]:
    """Indices of rows that make a tree, neighbours by their beginnings together, and its tokens: at most so many, unless it is one row."""
    pack: list[int] = []
    size = 0
    for index in sorted(range(len(rows)), key=lambda index: tuple(rows[index])):
        new = len(rows[index]) - (_alike(rows[pack[-1]], rows[index]) if pack else 0)
        if pack and size + new > tokens:
            yield pack, size
            pack, size, new = [], 0, len(rows[index])
        pack.append(index)
        size += new
    if pack:
        yield pack, size


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that two rows begin with in common."""
    place = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        place += 1
    return place

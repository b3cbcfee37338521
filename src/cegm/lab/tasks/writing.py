"""Greedy writing, many rows in step, in a tree of what has been read: a token costs one position and not all before it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cegm.lab.tasks.tree import Tree


class Writer:
    """The rows (of at least one token) that a model is writing on, in step.

    Attributes:
        tokens: How many have been read.
    """

    def __init__(self, tree: Tree, rows: Sequence[Sequence[int]]) -> None:
        self.tree, self.rows, self.tokens = tree, [list(row) for row in rows], 0

    def write(self) -> list[int]:
        """The most likely next token of each row, which becomes part of it."""
        before = len(self.tree)
        ends = [self.tree.add(row, anew=True)[-1] for row in self.rows]
        written: list[int] = self.tree.read(ends).argmax(-1).tolist()
        self.tokens += len(self.tree) - before
        for row, token in zip(self.rows, written, strict=True):
            row.append(token)
        return written

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with these rows, in this order, and forgets the others."""
        self.rows = [self.rows[place] for place in places]


class Rereader:
    """A writer for a model that reads no trees: it reads each row alone, anew for every token."""

    def __init__(self, model: nn.Module, rows: Sequence[Sequence[int]]) -> None:
        self.model, self.rows, self.tokens = model, [list(row) for row in rows], 0

    @torch.no_grad()
    def write(self) -> list[int]:
        """The most likely next token of each row, which becomes part of it."""
        device = next(self.model.parameters()).device
        for row in self.rows:
            self.tokens += len(row)
            logits: Tensor = self.model(input_ids=torch.tensor([row], device=device), use_cache=False).logits
            row.append(int(logits[0, -1].argmax()))
        return [row[-1] for row in self.rows]

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with these rows, in this order, and forgets the others."""
        self.rows = [self.rows[place] for place in places]

"""How a model reads rows of tokens: in trees, where what several begin with is read once, or else padded.

Logits are made where they are wanted. Rows are padded on the right, where a causal model never looks back from.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cegm.lab.tasks.items import NotMeasured
from cegm.lab.tasks.tree import Tree, packs, reads_trees
from cegm.lab.tasks.writing import Rereader, Writer

TOGETHER = 512
"""Tokens that make a pass: enough to keep a processor busy, and few against the width of a model, so that what a mask hides costs little."""

REMEMBERED = 2048
"""Tokens of a tree, beyond which the next texts are written in a new one."""


class Reader:
    """A causal language model of transformers that reads.

    Args:
        model: The model; read in evaluation mode, which it keeps.
        batch_size: Rows per pass, where they are padded or written in step; changes no result.

    Attributes:
        tokens: Tokens that it has read so far, padding left out; one that is read twice counts twice, one that several rows
            share once.
    """

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self.model, self.batch_size, self.tokens = model.eval(), batch_size, 0
        self._tree: Tree | None = None  # of what was written last

    @property
    def positions(self) -> int | None:
        """Tokens that the model can read at once; None without a limit."""
        config: Any = getattr(self.model, "config", None)
        return getattr(config, "max_position_embeddings", None)

    @cached_property
    def reads_trees(self) -> bool:
        """Whether the model gives rows in a tree the logits that it gives them alone."""
        return reads_trees(self.model)

    def logits(
        self, rows: Sequence[tuple[int, ...]], last: Sequence[int], context: tuple[int, ...] = ()
    ) -> Iterator[tuple[int, Tensor]]:
        """Index and logits, (last, vocabulary), of so many last tokens of every row after the context, in no particular order."""
        if not self.reads_trees:
            whole = [context + row for row in rows]
            for batch, ids in self.batches(whole):
                kept = self.kept([(len(whole[index]), last[index]) for index in batch])
                logits = self.forward(ids, logits_to_keep=kept).logits  # (rows, kept, vocabulary)
                for place, index in enumerate(batch):
                    end = len(whole[index]) - ids.shape[1] + kept
                    yield index, logits[place, end - last[index] : end]
            return
        self.refuse_beyond(len(context) + max(map(len, rows), default=0))
        tree = Tree(self.model, context)
        self.tokens += len(context)
        for pack, _ in packs(rows, TOGETHER):
            if not context:
                tree = Tree(self.model)
            before = len(tree)
            paths = {index: tree.add(rows[index])[len(rows[index]) - last[index] :] for index in pack}
            wanted = list(dict.fromkeys(node for path in paths.values() for node in path))
            self.tokens += len(tree) - before
            places, logits = {node: place for place, node in enumerate(wanted)}, tree.read(wanted)
            for index, path in paths.items():
                yield index, logits[[places[node] for node in path]]

    def kept(self, rows: Sequence[tuple[int, int]]) -> int:
        """Positions at the end of padded rows that have all logits wanted, by tokens and last wanted ones of each; all of them if need be."""
        width = max(tokens for tokens, _ in rows)
        return width - min(tokens - last for tokens, last in rows) if "logits_to_keep" in self._accepted else width

    def batches(self, rows: Sequence[tuple[int, ...]]) -> Iterator[tuple[list[int], Tensor]]:
        """Indices and right-padded tokens, (rows, longest), of rows of similar length."""
        self.refuse_beyond(max(map(len, rows), default=0))
        for batch in self.similar(rows):
            width = max(len(rows[index]) for index in batch)
            self.tokens += sum(len(rows[index]) for index in batch)
            padded = [rows[index] + rows[index][-1:] * (width - len(rows[index])) for index in batch]
            yield batch, torch.tensor(padded, device=self.device)

    def similar(self, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Indices of rows of similar length, a batch at a time."""
        assert all(rows), "a row without tokens has no next one"
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def refuse_beyond(self, tokens: int) -> None:
        """NotMeasured for more tokens than the model reads."""
        if self.positions is not None and tokens > self.positions:
            raise NotMeasured(
                f"a question has {tokens} tokens but the model reads {self.positions}; use a model with a longer context"
            )

    @torch.no_grad()
    def forward(self, ids: Tensor, **more: Any) -> Any:
        """A pass over padded rows, with what else the model takes."""
        known = {
            name: value for name, value in more.items() if name in self._accepted or name == "output_hidden_states"
        }
        return self.model(input_ids=ids, use_cache=False, **known)

    @cached_property
    def _accepted(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.model.forward).parameters)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def in_turn(self, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Indices of rows, so many as are written in step: those that follow each other, so that who asks again finds them together."""
        group: list[int] = []
        for index, row in enumerate(rows):
            if len(group) == self.batch_size or (group and sum(len(rows[g]) for g in group) + len(row) > REMEMBERED):
                yield group
                group = []
            group.append(index)
        if group:
            yield group

    def pen(self, rows: Sequence[Sequence[int]]) -> Writer | Rereader:
        """What writes these rows: in the tree of the last ones, where that has most of what they begin with."""
        if not self.reads_trees:
            return Rereader(self.model, rows)
        tree = self._tree
        if tree is None or len(tree) > REMEMBERED or 2 * sum(map(tree.missing, rows)) > sum(map(len, rows)):
            tree = self._tree = Tree(self.model)
        return Writer(tree, rows)

"""What an examination takes: passes and operations, counted as a model reads or by a rehearsal that reads nothing, and seconds by a timed pass.

A rehearsal draws all that would be asked, cuts it into tokens and packs it as an examination does. Judges that are no part of what is examined
(`minilm.py`) and the drawing itself are not counted.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from cegm.lab.tasks.axis import Axis
from cegm.lab.tasks.examinee import Array, Examinee, ReadToken
from cegm.lab.tasks.items import NotMeasured, Source
from cegm.lab.tasks.minilm import left_out
from cegm.lab.tasks.reader import TOGETHER
from cegm.lab.tasks.tree import Tree, packs
from cegm.lab.tasks.writing import Rereader, Writer

TRAINED = 3
"""Operations of a step of training per operation of its pass forwards."""

UPDATE = 5
"""Times that a step of training moves all weights, beyond its passes, where a pass moves them once: gradients, moments, weights."""

TIMED = 256
"""Tokens of the pass that is timed."""

WRITTEN = " word or so\n"
"""What a rehearsal writes, again and again."""


@dataclass
class Work:
    """Passes over the weights, and operations."""

    passes: float = 0.0
    operations: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.passes + other.passes, self.operations + other.operations)


@dataclass(frozen=True)
class Size:
    """Operations of a model for a token, for a token that it looks at from another, and for the logits after a token."""

    token: float
    look: float
    logits: float

    @classmethod
    def of(cls, model: Any) -> Size:
        """By the weights, and by width and layers where the configuration tells them."""
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        apart = {id(each.weight): each.weight.numel() for each in (head, embedding) if each is not None}
        inner = sum(weight.numel() for weight in model.parameters()) - sum(apart.values())
        width, layers = (getattr(model.config, name, 0) for name in ("hidden_size", "num_hidden_layers"))
        return cls(2.0 * inner, 4.0 * width * layers, 2.0 * (0 if head is None else head.weight.numel()))

    def work(self, tokens: float, looks: float, logits: float) -> Work:
        """Of one pass."""
        return Work(1, self.token * tokens + self.look * looks + self.logits * logits)


@dataclass(frozen=True)
class Pace:
    """Seconds of a pass over the weights that has nothing to do, and of an operation."""

    by_pass: float
    by_operation: float

    def seconds(self, work: Work) -> float:
        """How long some work takes."""
        return self.by_pass * work.passes + self.by_operation * work.operations


def pace(model: nn.Module) -> Pace:
    """Times a pass of one token and one of many, each at its best of two tries."""
    size, device = Size.of(model), next(model.parameters()).device

    def seconds(tokens: int) -> float:
        times = []
        for _ in range(2):
            start = time.perf_counter()
            with torch.no_grad():
                logits = model(input_ids=torch.ones(1, tokens, dtype=torch.long, device=device)).logits
            float(logits.sum())  # waits for a device that works apart
            times.append(time.perf_counter() - start)
        return min(times)

    few, many = size.work(1, 1, 1).operations, size.work(TIMED, TIMED**2 / 2, TIMED).operations
    one, all_ = seconds(1), seconds(TIMED)
    by_operation = max(all_ - one, all_ / 2) / (many - few)
    return Pace(max(one - few * by_operation, 0.0), by_operation)


def counted(model: nn.Module, told: Callable[[Work], None]) -> None:
    """Tells of all work that a model and its copies do from now on; a pass that is to be learned from counts with its step of training."""
    size = Size.of(model)

    def count(_: nn.Module, __: Any, given: dict[str, Any], answer: Any) -> None:
        rows, tokens = given["input_ids"].shape
        cache = given.get("past_key_values")
        before = 0 if cache is None else cache.get_seq_length() - tokens
        # Behind a mask every token is looked at and most of them in vain; without, only those before.
        looks = (
            tokens * (before + tokens) if given.get("attention_mask") is not None else tokens * (before + tokens / 2)
        )
        work = size.work(rows * tokens, rows * looks, answer.logits.shape[:-1].numel())
        told(_trained(work) if torch.is_grad_enabled() else work)

    model.register_forward_hook(count, with_kwargs=True)


def _trained(work: Work) -> Work:
    return Work(work.passes + UPDATE, TRAINED * work.operations)


class Rehearsal(Examinee):
    """Stands in for an examinee, reads nothing, and notes in `work` what reading would take; its answers mean nothing."""

    def __init__(self, examinee: Examinee) -> None:
        super().__init__(examinee.model, examinee.tokenizer, examinee.batch_size)
        self.reads_trees = examinee.reads_trees
        self.size, self.work = Size.of(examinee.model), Work()

    def note(self, tokens: float, looks: float, logits: float) -> None:
        """Notes a pass."""
        self.work += self.size.work(tokens, looks, logits)

    def _likelihoods(self, rows: Sequence[tuple[tuple[int, ...], int]], context: tuple[int, ...] = ()) -> list[float]:
        widest: dict[tuple[int, ...], int] = {}
        for row, counted in rows:
            widest[row[:-1]] = max(counted, widest.get(row[:-1], 0))
        self._pass_all(list(widest), list(widest.values()), context)
        return [0.0] * len(rows)

    def read(self, texts: Sequence[str]) -> list[list[ReadToken]]:
        """No token is the first guess."""
        encoded = self._spelled(texts)
        rows = [self.opening + tuple(each["input_ids"]) for each in encoded]
        self._pass_all(rows, [len(row) for row in rows])
        return [
            [ReadToken(start, end, -1.0, False) for start, end in each["offset_mapping"][not self.opening :]]
            for each in encoded
        ]

    def embed(self, texts: Sequence[str]) -> Array:
        """Vectors of eight numbers."""
        rows = [self.opening + tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        self._pass_padded(rows, None)
        return np.eye(len(texts), 8, dtype=np.float32)

    def studied(
        self,
        texts: Sequence[str],
        steps: Sequence[int],
        *,
        length: int = 128,
        rows: int = 2,
        learning_rate: float = 1e-3,
    ) -> Iterator[Examinee]:
        """Itself."""
        for goal, before in zip(steps, (0, *steps), strict=False):
            step = _trained(self.size.work(rows * length, rows * length**2 / 2, rows * length))
            self.work += Work((goal - before) * step.passes, (goal - before) * step.operations)
            yield self

    def _pass_all(self, rows: Sequence[tuple[int, ...]], last: Sequence[int], context: tuple[int, ...] = ()) -> None:
        if not self.reads_trees:
            self._pass_padded([context + row for row in rows], last)
            return
        if context:
            self.note(len(context), len(context) ** 2 / 2, 1)
        before = len(context)
        for pack, tokens in packs(rows, TOGETHER):
            self.note(tokens, tokens * (before + tokens), sum(last[index] for index in pack))
            before += tokens * bool(context)

    def _pass_padded(self, rows: Sequence[tuple[int, ...]], last: Sequence[int] | None) -> None:
        for batch in self.similar(rows):
            width = max(len(rows[index]) for index in batch)
            kept = 1 if last is None else self.kept([(len(rows[index]), last[index]) for index in batch])
            self.note(len(batch) * width, len(batch) * width**2 / 2, len(batch) * kept)

    def pen(self, rows: Sequence[Sequence[int]]) -> Dictation:
        """What notes in place of a writer."""
        pen = super().pen(rows)
        return Dictation(self, pen.tree if isinstance(pen, Writer) else None, rows)


class Dictation(Rereader):
    """Writes what it is told in place of what a model would, and notes what reading would take; without a tree, each row anew."""

    def __init__(self, rehearsal: Rehearsal, tree: Tree | None, rows: Sequence[Sequence[int]]) -> None:
        super().__init__(rehearsal.model, rows)
        self.rehearsal, self.tree, self.count = rehearsal, tree, 0
        self.told: list[int] = rehearsal.tokenizer(WRITTEN, add_special_tokens=False)["input_ids"]

    def write(self) -> list[int]:
        """The next token of what it is told, the same for each row."""
        if self.tree is None:
            for row in self.rows:
                self.rehearsal.note(len(row), len(row) ** 2 / 2, len(row))
        else:
            before = len(self.tree)
            for row in self.rows:
                self.tree.add(row, anew=True)
            new = len(self.tree) - before
            self.rehearsal.note(new, new * len(self.tree), len(self.rows))
        for row in self.rows:
            row.append(self.told[self.count % len(self.told)])
        self.count += 1
        return [row[-1] for row in self.rows]


def rehearsed(examinee: Examinee, axes: Sequence[Axis], source: Source, items: int, seed: int) -> list[Work]:
    """What each axis would take; nothing where it cannot be measured."""
    works = []
    for axis in axes:
        stand_in = Rehearsal(examinee)
        with warnings.catch_warnings(), left_out():
            warnings.simplefilter("ignore", UserWarning)
            try:
                axis.examine(stand_in, source, items, seed)
            except NotMeasured:
                stand_in.work = Work()
        works.append(stand_in.work)
    return works

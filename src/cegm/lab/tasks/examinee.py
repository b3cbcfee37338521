"""A model that sits an examination: it chooses, reads, writes, embeds and studies. All that the axes ask of a model, and nothing else.

Every answer is in float32 and depends neither on the batch size nor on what else is read (`reader.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cegm.lab.tasks.items import Choice, NotMeasured
from cegm.lab.tasks.reader import Reader
from cegm.lab.tasks.studying import students
from cegm.lab.train.tokens import opening

Array = npt.NDArray[np.float32]
Until = Callable[[str], object]
"""Says of what has been written whether it is enough."""


@dataclass(frozen=True)
class ReadToken:
    """How a model met one token of a text: its characters, its log-probability in nats, and whether it was the first guess."""

    start: int
    end: int
    log_probability: float
    top: bool


@dataclass(frozen=True)
class Question:
    """What is asked after a context, in token ids: a prompt and the options that may follow it, at least one token each."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


class Examinee(Reader):
    """A causal language model of transformers with its tokenizer.

    Args:
        model: The model; read in evaluation mode, which it keeps.
        tokenizer: Its tokenizer; must give offsets (a fast one) for `read`.
        batch_size: Rows per pass, where they are padded or written in step; changes no result.

    Attributes:
        tokens: Tokens that it has read so far, padding left out; one that is read twice counts twice, one that several rows
            share once. What students of `studied` read is theirs.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, batch_size: int = 16) -> None:
        super().__init__(model, batch_size)
        self.tokenizer = tokenizer

    def choose(self, choices: Sequence[Choice]) -> list[list[float]]:
        """Natural log-probability of each option of each choice (or of the tail after it): sums over tokens.

        Raises:
            NotMeasured: A choice is longer than the model's positions.
        """
        rows: list[tuple[tuple[int, ...], int]] = []  # tokens, and how many of the last ones count
        for choice in choices:
            rows += [self._row(choice, option) for option in choice.options]
        totals = iter(self._likelihoods(rows))
        return [[next(totals) for _ in choice.options] for choice in choices]

    def choose_after(self, context: Sequence[int], questions: Sequence[Question]) -> list[list[float]]:
        """Natural log-probability of each option of each question about a context (of token ids), none of which sees another.

        A context of thousands of tokens is read once, and serves every question.
        """
        rows = [(question.prompt + option, len(option)) for question in questions for option in question.options]
        totals = iter(self._likelihoods(rows, tuple(context)))
        return [[next(totals) for _ in question.options] for question in questions]

    def read(self, texts: Sequence[str]) -> list[list[ReadToken]]:
        """Every token of every text except a first one that has nothing before it.

        Raises:
            NotMeasured: A text is longer than the model's positions, or the tokenizer gives no offsets or cannot spell it.
        """
        encoded = self._spelled(texts)
        opening = self.opening
        rows = [opening + tuple(e["input_ids"]) for e in encoded]
        read: list[list[ReadToken]] = [[] for _ in texts]
        first = max(len(opening), 1)
        scored = [index for index, row in enumerate(rows) if len(row) > first]
        for place, logits in self.logits([rows[i][:-1] for i in scored], [len(rows[i]) - first for i in scored]):
            index = scored[place]
            spans, ids = encoded[index]["offset_mapping"], rows[index]
            target = torch.tensor(ids[first:], device=logits.device)
            scores = logits.float().log_softmax(-1)  # (tokens, vocabulary)
            likelihoods = scores.gather(-1, target[:, None])[:, 0].tolist()
            top = (scores.argmax(-1) == target).tolist()
            read[index] = [
                ReadToken(start, end, p, t)
                for (start, end), p, t in zip(spans[first - len(opening) :], likelihoods, top, strict=True)
            ]
        return read

    def _spelled(self, texts: Sequence[str]) -> list[Any]:
        """Tokens of texts, and where they stand in them."""
        if not self.tokenizer.is_fast:
            raise NotMeasured("this model's tokenizer gives no offsets; save it as a fast one (tokenizer.json)")
        encoded = [self.tokenizer(t, add_special_tokens=False, return_offsets_mapping=True) for t in texts]
        if any(self.tokenizer.unk_token_id in e["input_ids"] for e in encoded):
            raise NotMeasured("this tokenizer cannot spell these texts; use a model that was trained on text like it")
        return encoded

    def write(self, prompts: Sequence[str], tokens: int, until: Until = lambda written: False) -> list[str]:
        """Greedy continuation of each prompt: as text, with the white space in front of it.

        Args:
            prompts: What is read first.
            tokens: How many are written at most; a text that its model ends is shorter.
            until: Told what has been written; the text ends where its answer is true.

        Raises:
            NotMeasured: A prompt with what is written is longer than the model's positions.
        """
        rows = [[*self.opening, *self.tokenizer(p, add_special_tokens=False)["input_ids"]] for p in prompts]
        starts, texts = [len(row) for row in rows], [""] * len(rows)
        for going in self.in_turn(rows):
            pen = self.pen([rows[index] for index in going])
            for _ in range(tokens):
                self.refuse_beyond(max(len(rows[index]) for index in going))
                ended = set()
                for index, token in zip(going, pen.write(), strict=True):
                    rows[index].append(token)
                    if token != self.tokenizer.eos_token_id:
                        texts[index] = self._text(rows[index], starts[index])
                    if token == self.tokenizer.eos_token_id or until(texts[index]):
                        ended.add(index)
                if len(ended) == len(going):
                    break
                if ended:
                    pen.keep([place for place, index in enumerate(going) if index not in ended])
                    going = [index for index in going if index not in ended]
            self.tokens += pen.tokens
        return texts

    def _text(self, row: list[int], start: int) -> str:
        """Text of a row from `start` on; decoded with the token before, since many tokenizers drop white space in front."""
        known = row[max(start - 1, 0) : start]
        return str(self.tokenizer.decode([*known, *row[start:]]))[len(str(self.tokenizer.decode(known))) :]

    def embed(self, texts: Sequence[str]) -> Array:
        """Mean over tokens of the last hidden state of each text, (texts, hidden)."""
        rows = [self.opening + tuple(self.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
        means: dict[int, Tensor] = {}
        for batch, ids in self.batches(rows):
            states = self.forward(ids, output_hidden_states=True, logits_to_keep=1).hidden_states[-1]
            for place, index in enumerate(batch):
                means[index] = states[place, len(self.opening) : len(rows[index])].float().mean(0)
        return np.stack([means[index].cpu().numpy() for index in range(len(rows))])

    def studied(
        self,
        texts: Sequence[str],
        steps: Sequence[int],
        *,
        length: int = 128,
        rows: int = 2,
        learning_rate: float = 1e-3,
    ) -> Iterator[Examinee]:
        """This model after so many steps of training on the texts, for each of `steps`; this one itself stays as it is.

        The same plain AdamW for every model, whatever trained it before: betas .9 and .95, no weight decay, constant
        rate, gradients clipped to norm 1. Dropout stays off, so that nothing is drawn at random.

        Args:
            texts: Packed with their openings into rows of `length` tokens, in order, from the start again when they end.
            steps: Rising; 0 yields an unchanged copy.
            length: Tokens per row.
            rows: Rows per step.
            learning_rate: Peak and only one.

        Raises:
            NotMeasured: Less text than one step needs.
        """
        encoded = (self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        tokens = [token for ids in encoded for token in (*self.opening, *ids)]
        if len(tokens) < length * rows:
            raise NotMeasured(f"{len(tokens)} tokens to adapt on, one step takes {length * rows}; give more text")
        whole = torch.tensor(tokens[: len(tokens) // length * length], device=self.device).view(-1, length)
        for model in students(self.model, whole, steps, rows, learning_rate):
            student = Examinee(model, self.tokenizer, self.batch_size)
            student.reads_trees = self.reads_trees  # the same architecture
            yield student

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """The tokens that this tokenizer puts before every text, where it has any: models trained with them lean on them."""
        return opening(self.tokenizer)

    def _row(self, choice: Choice, option: str) -> tuple[tuple[int, ...], int]:
        """Tokens of a choice with one option, and how many of the last ones count.

        The text is encoded whole, as it was in training; where the scored part begins is told by encoding what is
        before it (as in the language model evaluation harness, arXiv 2405.14782).
        """
        before = choice.context + option if choice.tail else choice.context
        whole = self.tokenizer(before + (choice.tail or option), add_special_tokens=False)["input_ids"]
        known = self.tokenizer(before, add_special_tokens=False)["input_ids"]
        row = self.opening + tuple(whole)
        counted = max(len(whole) - len(known), 1)
        return row, min(counted, len(row) - 1)

    def _likelihoods(self, rows: Sequence[tuple[tuple[int, ...], int]], context: tuple[int, ...] = ()) -> list[float]:
        """Sum of the log-probabilities of the last tokens of each row; rows that differ in their last token only are read once."""
        asked: dict[tuple[int, ...], list[int]] = {}
        for index, (row, _) in enumerate(rows):
            asked.setdefault(row[:-1], []).append(index)
        inputs, totals = list(asked), [0.0] * len(rows)
        widest = [max(rows[which][1] for which in asked[each]) for each in inputs]
        for index, logits in self.logits(inputs, widest, context):
            scores = logits.float().log_softmax(-1)  # (counted, vocabulary)
            for which in asked[inputs[index]]:
                row, counted = rows[which]
                target = torch.tensor(row[-counted:], device=scores.device)
                totals[which] = float(scores[-counted:].gather(-1, target[:, None]).double().sum())
        return totals

"""A model that sits an examination: it chooses, reads, writes, embeds and studies. All that the axes ask of a model, and nothing else.

Every answer is in float32 and depends neither on the batch size nor on padding: rows are padded on the right, where a causal model never looks
back from, or on the left behind a mask where it writes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from cegm.lab.tasks.items import Choice, NotMeasured
from cegm.lab.tasks.writing import writer
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


class Examinee:
    """A causal language model of transformers with its tokenizer.

    Args:
        model: The model; read in evaluation mode, which it keeps.
        tokenizer: Its tokenizer; must give offsets (a fast one) for `read`.
        batch_size: Rows per pass; changes no result.

    Attributes:
        tokens: Tokens that it has read so far, padding left out; one that is read twice counts twice. What students
            of `studied` read is theirs.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, batch_size: int = 16) -> None:
        self.model, self.tokenizer, self.batch_size = model.eval(), tokenizer, batch_size
        self.tokens = 0

    @property
    def positions(self) -> int | None:
        """Tokens that the model can read at once; None without a limit."""
        config: Any = getattr(self.model, "config", None)
        return getattr(config, "max_position_embeddings", None)

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

    @torch.no_grad()
    def choose_after(self, context: Sequence[int], questions: Sequence[Question]) -> list[list[float]]:
        """Natural log-probability of each option of each question about a context (of token ids), none of which sees another.

        A context of thousands of tokens is read once; its keys and values serve every question. Questions are right-padded rows
        after them: under a causal mask a token never sees what follows it, so padding needs no mask and changes no result.
        """
        self.tokens += len(context)
        ids = torch.tensor([list(context)], device=self._device)  # (1, context)
        past = self.model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values
        rows = [(question.prompt + option, len(option)) for question in questions for option in question.options]
        totals = iter(self._likelihoods(rows, past))
        return [[next(totals) for _ in question.options] for question in questions]

    def read(self, texts: Sequence[str]) -> list[list[ReadToken]]:
        """Every token of every text except a first one that has nothing before it.

        Raises:
            NotMeasured: A text is longer than the model's positions, or the tokenizer gives no offsets or cannot spell it.
        """
        if not self.tokenizer.is_fast:
            raise NotMeasured("this model's tokenizer gives no offsets; save it as a fast one (tokenizer.json)")
        opening = self.opening
        encoded = [self.tokenizer(t, add_special_tokens=False, return_offsets_mapping=True) for t in texts]
        rows = [opening + tuple(e["input_ids"]) for e in encoded]
        if any(self.tokenizer.unk_token_id in e["input_ids"] for e in encoded):
            raise NotMeasured("this tokenizer cannot spell these texts; use a model that was trained on text like it")
        read: list[list[ReadToken]] = [[] for _ in texts]
        for index, logits in self._logits(rows):
            spans, ids = encoded[index]["offset_mapping"], rows[index]
            first = max(len(opening), 1)
            target = torch.tensor(ids[first:], device=logits.device)
            scores = logits[first - 1 : len(ids) - 1].float().log_softmax(-1)  # (tokens, vocabulary)
            likelihoods = scores.gather(-1, target[:, None])[:, 0].tolist()
            top = (scores.argmax(-1) == target).tolist()
            read[index] = [
                ReadToken(start, end, p, t)
                for (start, end), p, t in zip(spans[first - len(opening) :], likelihoods, top, strict=True)
            ]
        return read

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
        for going in self._similar(rows):
            pen = writer(self.model, [rows[index] for index in going])
            self.tokens += sum(starts[index] for index in going)
            for count in range(tokens):
                self._refuse_beyond(max(len(rows[index]) for index in going))
                self.tokens += len(going) if count else 0  # the last one written is not read
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
        return texts

    def _text(self, row: list[int], start: int) -> str:
        """Text of a row from `start` on; decoded with the token before, since many tokenizers drop white space in front."""
        known = row[max(start - 1, 0) : start]
        return str(self.tokenizer.decode([*known, *row[start:]]))[len(str(self.tokenizer.decode(known))) :]

    def embed(self, texts: Sequence[str]) -> Array:
        """Mean over tokens of the last hidden state of each text, (texts, hidden)."""
        rows = [self.opening + tuple(self.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
        means: dict[int, Tensor] = {}
        for batch, ids in self._batches(rows):
            states = self._forward(ids, output_hidden_states=True).hidden_states[-1].float()  # (rows, tokens, hidden)
            for place, index in enumerate(batch):
                means[index] = states[place, len(self.opening) : len(rows[index])].mean(0)
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
        whole = torch.tensor(tokens[: len(tokens) // length * length]).view(-1, length)  # (all rows, length)
        model: Any = copy.deepcopy(self.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
        taken = 0
        for goal in steps:
            while taken < goal:
                picked = torch.arange(taken * rows, (taken + 1) * rows) % len(whole)
                batch = whole[picked].to(self._device)  # (rows, length)
                logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
                loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                taken += 1
            yield Examinee(model, self.tokenizer, self.batch_size)

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

    def _likelihoods(self, rows: Sequence[tuple[tuple[int, ...], int]], past: Any = None) -> list[float]:
        """Sum of the log-probabilities of the last tokens of each row; rows that differ in their last token only are read once."""
        inputs = list(dict.fromkeys(row[:-1] for row, _ in rows))
        asked: dict[tuple[int, ...], list[int]] = {each: [] for each in inputs}
        for index, (row, _) in enumerate(rows):
            asked[row[:-1]].append(index)
        totals = [0.0] * len(rows)
        for index, logits in self._logits(inputs, past):
            widest = max(rows[which][1] for which in asked[inputs[index]])
            scores = logits[-widest:].float().log_softmax(-1)  # (counted, vocabulary)
            for which in asked[inputs[index]]:
                row, counted = rows[which]
                target = torch.tensor(row[-counted:], device=scores.device)
                totals[which] = float(scores[-counted:].gather(-1, target[:, None]).double().sum())
        return totals

    def _logits(self, rows: Sequence[tuple[int, ...]], past: Any = None) -> Iterator[tuple[int, Tensor]]:
        """Index and logits, (tokens, vocabulary), of every row after what is in the cache `past`, in no particular order."""
        for batch, ids in self._batches(rows):
            cache = copy.deepcopy(past)  # the model appends to the cache it is given
            if past is not None:
                cache.batch_repeat_interleave(len(batch))
            logits = self._forward(ids, past_key_values=cache).logits  # (rows, tokens, vocabulary)
            for place, index in enumerate(batch):
                yield index, logits[place, : len(rows[index])]

    def _batches(self, rows: Sequence[tuple[int, ...]]) -> Iterator[tuple[list[int], Tensor]]:
        """Indices and right-padded tokens, (rows, longest), of rows of similar length."""
        self._refuse_beyond(max(map(len, rows), default=0))
        for batch in self._similar(rows):
            width = max(len(rows[index]) for index in batch)
            self.tokens += sum(len(rows[index]) for index in batch)
            padded = [rows[index] + rows[index][-1:] * (width - len(rows[index])) for index in batch]
            yield batch, torch.tensor(padded, device=self._device)

    def _similar(self, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Indices of rows of similar length, a batch at a time."""
        assert all(rows), "a row without tokens has no next one"
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        for start in range(0, len(order), self.batch_size):
            yield order[start : start + self.batch_size]

    def _refuse_beyond(self, tokens: int) -> None:
        if self.positions is not None and tokens > self.positions:
            raise NotMeasured(
                f"a question has {tokens} tokens but the model reads {self.positions}; use a model with a longer context"
            )

    @torch.no_grad()
    def _forward(self, ids: Tensor, **more: Any) -> Any:
        known = {name: value for name, value in more.items() if value is not None}
        return self.model(input_ids=ids, use_cache="past_key_values" in known, **known)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

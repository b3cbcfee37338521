"""Log-probability of answer options after a shared context, with one pass over the context.

A context of thousands of tokens is read once; its keys and values serve every question asked about it. Questions are right-padded rows after
that cache: under a causal mask a token never sees what follows it, so padding needs no mask and changes no result.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Question:
    """What is asked after the context, in token ids: a prompt and the options that may follow it, at least one token each."""

    prompt: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


@torch.no_grad()
def score_options(
    model: nn.Module, context: Sequence[int], questions: Sequence[Question], *, batch_size: int = 16
) -> list[list[float]]:
    """Scores the options of every question by their likelihood after `context` and the question's prompt.

    Args:
        model: A causal language model of transformers (it takes `input_ids`, `past_key_values`, `use_cache` and `logits_to_keep`).
        context: Token ids that all questions share, at least one.
        questions: Questions about the context; none of them sees another.
        batch_size: Rows per pass. Each holds a copy of the context's keys and values while it is scored.

    Returns:
        For each question the natural log-probability of each option: the sum over its tokens, from a log-softmax in float32.
    """
    assert context, "there is nothing to share"
    rows = _rows(questions)
    was_training = model.training
    model.eval()
    try:
        cache = _read(model, context)
        scores = [[0.0] * len(question.options) for question in questions]
        pending = sorted(rows, key=len)
        for start in range(0, len(pending), batch_size):
            batch = pending[start : start + batch_size]
            for row, log_probabilities in zip(batch, _continue(model, cache, batch), strict=True):
                for index, choice in rows[row]:
                    scores[index][choice] = _sum(log_probabilities, questions[index], choice)
    finally:
        model.train(was_training)
    return scores


def _rows(questions: Sequence[Question]) -> dict[tuple[int, ...], list[tuple[int, int]]]:
    """Distinct inputs, each with the (question, option) pairs it serves: options of one token all share the row of their prompt."""
    rows: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for index, question in enumerate(questions):
        assert question.prompt, "the option must follow something that belongs to its own row"
        assert all(question.options), "an option without tokens has no likelihood"
        for choice, option in enumerate(question.options):
            rows.setdefault(question.prompt + option[:-1], []).append((index, choice))
    return rows


def _read(model: nn.Module, context: Sequence[int]) -> Any:
    ids = torch.tensor([list(context)], device=_device(model))  # (1, context)
    return model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values


def _continue(model: nn.Module, cache: Any, batch: Sequence[tuple[int, ...]]) -> Tensor:
    """Log-probabilities of the next token at every position of every row, (rows, longest, vocabulary)."""
    longest = max(map(len, batch))
    ids = torch.tensor([row + row[-1:] * (longest - len(row)) for row in batch], device=_device(model))
    copied = copy.deepcopy(cache)  # the model appends to the cache it is given
    copied.batch_repeat_interleave(len(batch))
    logits: Tensor = model(input_ids=ids, past_key_values=copied, use_cache=True).logits
    return logits.float().log_softmax(-1)


def _sum(log_probabilities: Tensor, question: Question, choice: int) -> float:
    option = question.options[choice]
    first = len(question.prompt) - 1  # this position predicts the option's first token
    steps = torch.arange(first, first + len(option), device=log_probabilities.device)
    return float(log_probabilities[steps, torch.tensor(option, device=log_probabilities.device)].double().sum())


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device

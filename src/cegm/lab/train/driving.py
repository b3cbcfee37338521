"""Which training rows pull the weights where they move: alignment scores at the end of a run, row by row."""

from __future__ import annotations

from typing import Any

import datasets
import torch
from msgspec import Struct
from torch import nn
from transformers import PreTrainedTokenizerBase

from cegm.explanation import explain
from cegm.lab.records import Count, line

MOST_TOKENS = 5
"""Of a row, as many tokens with the highest scores are kept."""

MOST_LETTERS = 200
"""Of a row, as many letters of its text are kept."""


class Driving(Struct):
    """A token of an `Explained` row."""

    token: str
    score: float


class Explained(Struct):
    """A row of an `Explanation`; `driving_rows` tells what its score is."""

    row: Count
    tokens: Count
    loss: float
    score: float
    text: str
    driving: list[Driving]


class Explanation(Struct):
    """`explanation.json` of a run: of `rows` rows, how some pulled the weights after the last step."""

    step: Count
    rows: Count
    explained: list[Explained]


def driving_rows(
    model: nn.Module, optimizer: Any, rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, count: int
) -> list[Explained]:
    """So many rows, evenly picked, the one with the highest score first; nothing that trains is changed.

    `score` is the inner product, over all weights of Algorithm 1, of the gradient of a row's mean loss with the entangled
    gradient after the last step: above zero where the row pulls the weights along, below where it pulls back.
    """
    picked = sorted({index * len(rows) // count for index in range(count)})
    return sorted((_row(model, optimizer, rows[index], tokenizer) for index in picked), key=lambda row: -row.score)


def _row(model: nn.Module, optimizer: Any, row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Explained:
    ids = torch.tensor([row["input_ids"]])
    found = explain(model, optimizer, ids, tokenizer)
    (text,) = found.texts
    return Explained(
        row=row["row"],
        tokens=len(text.tokens),
        loss=found.loss,
        score=float(text.total().sum()),
        text=str(tokenizer.decode(ids[0]))[:MOST_LETTERS],
        driving=[Driving(token, score) for _, token, score in text.driving(MOST_TOKENS)],
    )


def explanation(
    model: nn.Module, optimizer: Any, rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, count: int, step: int
) -> str:
    """Content of `explanation.json` after so many steps."""
    return line(Explanation(step, len(rows), driving_rows(model, optimizer, rows, tokenizer, count))) + "\n"

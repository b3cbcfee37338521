"""Validation loss over a fixed set of rows: float32, nats per token and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from cegm.lab.train.conversations import IGNORED
from cegm.lab.train.rows import ValidationRows
from cegm.lab.train.sharded import reshard


@dataclass(frozen=True)
class ValidationSet:
    """Held-out batches, the same for every evaluation of a run.

    Attributes:
        batches: Arguments of the model plus `labels`, each tensor (rows, tokens).
        predicted: Tokens whose loss counts.
        bytes: UTF-8 bytes of text they stand for.
    """

    batches: list[dict[str, Tensor]]
    predicted: int
    bytes: int


@dataclass(frozen=True)
class ValidationLoss:
    """Mean loss in nats per predicted token, and in bits per byte of text."""

    loss: float
    bits_per_byte: float


def from_rows(rows: ValidationRows, batch_size: int) -> ValidationSet:
    """Packed rows of plain text, in batches."""
    tokens = torch.from_numpy(rows.tokens)  # (rows, tokens)
    batches = [{"input_ids": part, "labels": part} for part in torch.split(tokens, batch_size)]
    return ValidationSet(batches, tokens[:, 1:].numel(), rows.bytes)


def from_dataset(
    dataset: Any, collator: Any, tokenizer: PreTrainedTokenizerBase, rows: int, batch_size: int
) -> ValidationSet:
    """Conversations or completions that SFTTrainer has prepared (`input_ids`, `labels`), padded into batches."""
    examples = [dataset[index] for index in range(min(rows, len(dataset)))]
    answers = [[label for label in example["labels"][1:] if label != IGNORED] for example in examples]
    texts = [str(tokenizer.decode(answer, skip_special_tokens=True)) for answer in answers]
    size = sum(len(text.encode()) for text in texts)
    batches = []
    for start in range(0, len(examples), batch_size):
        batch = collator(examples[start : start + batch_size])
        batches.append({name: batch[name] for name in ("input_ids", "attention_mask", "labels")})
    return ValidationSet(batches, sum(map(len, answers)), size)


@torch.no_grad()
def validate(model: nn.Module, held_out: ValidationSet) -> ValidationLoss:
    """Loss on the held-out rows; leaves the model in training mode and touches no random state.

    Accelerate's autocast around the forward pass is bypassed, so that the number is exact.
    """
    device = next(model.parameters()).device
    model.eval()
    total = 0.0
    with _exact(model):
        for batch in held_out.batches:
            inputs = {name: value.to(device) for name, value in batch.items()}
            labels = inputs.pop("labels")[:, 1:]  # (rows, tokens - 1)
            logits = model(**inputs, use_cache=False).logits[:, :-1].float()  # (rows, tokens - 1, vocabulary)
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
            total += loss.item()
    reshard(model)
    model.train()
    return ValidationLoss(total / held_out.predicted, total / math.log(2) / max(held_out.bytes, 1))


@contextmanager
def _exact(model: nn.Module) -> Iterator[None]:
    """Without accelerate's autocast, which it puts in place of `forward`; hooks of the model, which put shards together, stay."""
    if not hasattr(model, "_original_forward"):
        yield
        return
    inside = model.forward
    setattr(model, "forward", model._original_forward)  # noqa: B010  # a type checker takes it for a method
    try:
        yield
    finally:
        setattr(model, "forward", inside)  # noqa: B010

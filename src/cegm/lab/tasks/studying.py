"""A model after some steps on a text: the same plain AdamW for every model, whatever trained it before."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def students(
    model: nn.Module, texts: Tensor, steps: Sequence[int], rows: int, learning_rate: float
) -> Iterator[nn.Module]:
    """A copy of the model after so many steps on the texts, (all rows, length), for each of `steps`: always the same one, trained on."""
    student: Any = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    taken = 0
    for goal in steps:
        while taken < goal:
            batch = texts[torch.arange(taken * rows, (taken + 1) * rows) % len(texts)]  # (rows, length)
            logits = student(input_ids=batch, use_cache=False).logits[:, :-1].float()
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            taken += 1
        yield student

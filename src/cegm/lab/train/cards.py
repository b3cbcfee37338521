"""Context cards of a run: read, or made of home text, or of text that the model writes itself."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cegm.context.card import ContextCard
from cegm.home import card
from cegm.lab.train.card_options import LENGTH, SUFFIX, TOKENS, CardConfig
from cegm.lab.train.data import load_corpus
from cegm.lab.train.model import load_trained
from cegm.lab.train.prepare import is_main_process
from cegm.lab.train.rows import training_rows
from cegm.lab.train.run_config import OWN_TEXT, RunConfig
from cegm.options import CARD_SHARE

ROWS = 16
"""Per pass."""


def write_context_card(config: CardConfig) -> tuple[ContextCard, Path]:
    """Makes a card and writes it: what it holds, and where it lies."""
    model, tokenizer = load_trained(config.model_name_or_path, config.trust_remote_code)
    texts = [each.strip() for each in config.text.split(",") if each.strip()] or [OWN_TEXT]
    options = {name: getattr(config, name) for name in ("tokens", "length", "share", "demands", "seed")}
    made = [make(model, tokenizer, text, **options) for text in texts]
    whole = made[0]
    for other in made[1:]:
        whole = whole + other
    return whole, whole.save(config.output)


def card_of(config: RunConfig, model: Any, tokenizer: PreTrainedTokenizerBase, kept: Path) -> bytes | None:
    """Content of the card that a run retains by: that in its folder, a file's, or that of one made now; None for none.

    Bytes, because a run goes on from what it has kept, and directions are rounded on their way into a file.

    Args:
        config: The run.
        model: Before the first step; adapters that have not begun change nothing.
        tokenizer: The model's.
        kept: Where the run keeps its card, for a resumption.
    """
    if not config.retain:
        return None
    if kept.exists():
        return kept.read_bytes()
    if config.retain.endswith(SUFFIX):
        return Path(config.retain).read_bytes()
    begun = time.monotonic()
    made = make(model, tokenizer, config.retain, seed=config.seed)
    if is_main_process():
        print(f"cegm: context card of {described(made)} in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return made.content()


def make(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    tokens: int = TOKENS,
    length: int = LENGTH,
    seed: int = 0,
    share: float = CARD_SHARE,
    demands: bool = False,
) -> ContextCard:
    """A card of one text, or of `own` text; options as in `CardConfig`."""
    length = min(length, int(getattr(model.config, "max_position_embeddings", None) or length))
    count = math.ceil(tokens / length)
    if text == OWN_TEXT:
        rows = own_rows(model, tokenizer, count, length, seed)
        home: dict[str, Any] = {"text": "self-generated", "temperature": 1.0}
    else:
        corpus = load_corpus(RunConfig(data=text, max_length=length))
        rows = torch.tensor(training_rows(corpus, tokenizer, length, count, seed)["input_ids"])
        home = {"text": Path(text).name, "sha256": corpus.digest()}
    return card(model, rows.split(ROWS), share=share, demands=demands, seed=seed, home=home)


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


def homes(path: Path) -> list[dict[str, Any]]:
    """What the file of a card says of its homes, without reading its directions."""
    with safe_open(path, framework="pt") as file:
        found: list[dict[str, Any]] = json.loads(file.metadata()["homes"])
    return found


def described(made: ContextCard) -> str:
    """What a card was made of, in words."""
    homes = [f"{home['tokens']:,} tokens of {home.get('text', 'text')}" for home in made.homes]
    return f"{' and '.join(homes)}, {len(made.contexts)} weights"

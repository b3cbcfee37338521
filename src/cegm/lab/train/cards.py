"""What a run retains by: a context card that is read, or made of text that the model knows, or a Fisher diagonal of that text."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cegm.context.card import ContextCard
from cegm.home import card
from cegm.lab.baselines import METHODS
from cegm.lab.baselines.ewc import diagonal_fisher
from cegm.lab.train.card_options import LENGTH, SUFFIX, TOKENS, CardConfig
from cegm.lab.train.home_text import ROWS, home_rows
from cegm.lab.train.model import load_trained
from cegm.lab.train.prepare import is_main_process
from cegm.lab.train.run_config import OWN_TEXT, RunConfig
from cegm.options import CARD_SHARE


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
    if not config.retain or METHODS[config.method].retains == "fisher":
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


def fisher_of(config: RunConfig, model: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor] | None:
    """The Fisher diagonal that a run retains by, of as much text as a card; None where the method wants none.

    It lies in the optimizer's state, so a resumption takes the checkpoint's and this one is for one without that.
    """
    if not config.retain or METHODS[config.method].retains != "fisher":
        return None
    begun = time.monotonic()
    rows, home = _rows(model, tokenizer, config.retain, TOKENS, LENGTH, config.seed)
    found = diagonal_fisher(model, rows, config.seed)
    if is_main_process():
        told = f"Fisher diagonal of {rows.numel():,} tokens of {home['text']}"
        print(f"cegm: {told}, {len(found)} weights in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return found


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
    rows, home = _rows(model, tokenizer, text, tokens, length, seed)
    return card(model, rows.split(ROWS), share=share, demands=demands, seed=seed, home=home)


def _rows(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, tokens: int, length: int, seed: int
) -> tuple[Tensor, dict[str, Any]]:
    length = min(length, int(getattr(model.config, "max_position_embeddings", None) or length))
    return home_rows(model, tokenizer, text, math.ceil(tokens / length), length, seed)


def texts_seen(path: Path) -> set[str]:
    """Hashes of the texts that the card of a file has seen, without reading its directions; none where there is no card."""
    if not path.exists():
        return set()
    with safe_open(path, framework="pt") as file:
        return {home["sha256"] for home in json.loads(file.metadata()["homes"]) if "sha256" in home}


def described(made: ContextCard) -> str:
    """What a card was made of, in words."""
    homes = [f"{home['tokens']:,} tokens of {home.get('text', 'text')}" for home in made.homes]
    return f"{' and '.join(homes)}, {len(made.contexts)} weights"

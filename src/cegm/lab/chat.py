"""`cegm chat`: a conversation in the terminal with a model that was trained here, or with any other."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cegm.lab.declarations import LARGEST_SEED, Declared, option

NEW = "/new"
"""Said alone, it begins another conversation."""


@dataclass
class ChatConfig(Declared):
    """One conversation. Every field is a flag of `cegm chat`.

    Raises:
        ValueError: In one line, for anything that could not run.
    """

    model_name_or_path: str = option("", "run folder, local folder, GGUF file or hub name of a model, or smollm2")
    system: str = option("", "what the model is told before the conversation")
    max_new_tokens: int = option(256, "most tokens of an answer", low=1)
    temperature: float = option(0.7, "how freely words are drawn; 0 always takes the likeliest", low=0)
    seed: int = option(0, "of what is drawn", low=0, high=LARGEST_SEED)
    trust_remote_code: bool = option(False, "run code that a hub model brings along")

    def __post_init__(self) -> None:
        if not self.model_name_or_path:
            raise ValueError("with which model? give a run folder, a local folder or a hub name: cegm chat runs/mine")
        super().__post_init__()


def chat(config: ChatConfig) -> None:
    """Answers what is typed, line by line, until the input ends; ValueError where there is no trained model."""
    from transformers import set_seed

    from cegm.lab.train.model import load_trained
    from cegm.lab.train.prepare import quieten

    quieten()
    model, tokenizer = load_trained(_model_of(config.model_name_or_path), config.trust_remote_code)
    set_seed(config.seed)
    print(f"{config.model_name_or_path}: type and press enter; {NEW} begins anew, Ctrl-D ends", file=sys.stderr)
    converse(model.eval(), tokenizer, _typed(), config)


def _model_of(name: str) -> str:
    """The model that a run has saved, or what was named."""
    saved = Path(name).expanduser() / "model"
    return str(saved) if saved.is_dir() else name


def _typed() -> Iterator[str]:
    """Lines from the terminal, after a mark, or from a pipe."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.strip()


def converse(model: Any, tokenizer: Any, lines: Iterable[str], config: ChatConfig) -> None:
    """Prints an answer to each line while it is written; the model reads all that was said before.

    A tokenizer without a chat template makes no turns: the model goes on with each line by itself.
    """
    from transformers import TextStreamer

    told = [{"role": "system", "content": config.system}] if config.system else []
    said: list[dict[str, str]] = []
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    drawn: dict[str, Any] = {"temperature": config.temperature, "top_k": 0} if config.temperature else {}
    for line in filter(None, lines):
        if line == NEW:
            said = []
            continue
        said = [*said, {"role": "user", "content": line}] if tokenizer.chat_template else []
        prompt = _prompt(tokenizer, [*told, *said], line)
        room = positions - prompt["input_ids"].shape[1]
        if room < 1:
            print(
                f"cegm: that is more than the {positions} tokens which the model reads; {NEW} begins anew",
                file=sys.stderr,
            )
            said = said[:-1]
            continue
        written = model.generate(
            **prompt, **drawn, do_sample=bool(drawn), max_new_tokens=min(config.max_new_tokens, room),
            pad_token_id=tokenizer.pad_token_id, streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
        )  # fmt: skip
        answer = tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        said = [*said, {"role": "assistant", "content": answer}] if said else []


def _prompt(tokenizer: Any, messages: list[dict[str, str]], line: str) -> dict[str, Any]:
    """Token ids and mask, shape (1, tokens): the conversation, or where the tokenizer knows none the line alone."""
    if tokenizer.chat_template:
        options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        return dict(tokenizer.apply_chat_template(messages, **options))
    encoded = tokenizer(line, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}

"""A model folder small enough to train in a test, and text for it."""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from cegm.lab.train import cards
from cegm.lab.train.model import byte_tokenizer
from cegm.lab.train.run_config import RunConfig


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Llama, 2 layers of 32, one byte per token, up to 64 positions."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = byte_tokenizer()
    settings = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    set_seed(0)
    LlamaForCausalLM(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """About 40 kB of words in a seeded order."""
    words = ["the", "river", "carries", "a", "small", "boat", "past", "old", "houses", "at", "night", "über"]
    draw = random.Random(7)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(draw.choice(words) for _ in range(8000)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session", autouse=True)
def short_fisher() -> Iterator[None]:
    """A Fisher diagonal of 512 tokens where a run makes its own; 16,384 take these models longer than the run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "TOKENS", 512)
        yield


@pytest.fixture
def run_config(model_folder: str, text_file: str, tmp_path: Path) -> Callable[..., RunConfig]:
    """Configurations of tiny runs; anything given wins."""

    def make(**given: Any) -> RunConfig:
        defaults: dict[str, Any] = {
            "model_name_or_path": model_folder,
            "data": text_file,
            "output_dir": str(tmp_path / "run"),
            "method": "adamw",
            "max_length": 32,
            "per_device_train_batch_size": 4,
            "max_steps": 6,
            "logging_steps": 1,
            "eval_steps": 0,
            "eval_rows": 4,
            "learning_rate": 1e-2,
            "threads": 1,
        }
        return RunConfig(**{**defaults, **given})

    return make


@pytest.fixture
def port() -> int:
    """A free one below those that the kernel hands out by itself, so that no connection takes it before it is listened to."""
    while True:
        number = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", number))
            return number

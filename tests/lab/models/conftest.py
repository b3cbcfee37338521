"""GGUF files made on the spot, and a cache of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("transformers")

import gguf
from tokenizers import pre_tokenizers

Write = Callable[..., Path]

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] + ' ' + message['content'] }}<|im_end|>{% endfor %}"
)
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
WIDTH, INNER, HEADS, KEYS, LAYERS = 32, 64, 4, 2, 2
CONTROL, NORMAL = 3, 1


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test keeps converted models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cegm" / "models"


@pytest.fixture
def gguf_file(tmp_path: Path) -> Write:
    """Writes a Llama of two layers in four bits a weight, with a tokenizer of bytes and two merges."""

    def write(name: str = "tiny.gguf", architecture: str = "llama", tokenizer: bool = True, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        writer = gguf.GGUFWriter(path, architecture)
        describe(writer)
        if tokenizer:
            spell(writer)
        for tensor, data in tensors(np.random.default_rng(seed)).items():
            kind = gguf.GGMLQuantizationType.Q4_1 if data.ndim == 2 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(tensor, gguf.quants.quantize(data, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


def describe(writer: Any) -> None:
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(WORDS))


def spell(writer: Any) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(WORDS)
    writer.add_token_merges(["t h", "th e"])
    writer.add_token_types([CONTROL] * 3 + [NORMAL] * (len(WORDS) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)


def tensors(draw: np.random.Generator) -> dict[str, Any]:
    """Weights by their names in such files."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (len(WORDS), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        narrow = WIDTH * KEYS // HEADS
        block = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (narrow, WIDTH),
            "attn_v": (narrow, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        shapes.update({f"blk.{layer}.{name}": shape for name, shape in block.items()})
    return {f"{name}.weight": draw.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}

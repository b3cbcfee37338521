"""Small models of many architectures: those that read trees, and others."""

import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    RwkvConfig,
)

VOCABULARY = 60
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "initializer_range": 0.3}
LAYERS = {"num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4}
READERS = {
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3),
    "llama, shared keys": LlamaConfig(**SMALL, **LAYERS, num_key_value_heads=2),
    "mistral, window of 4": MistralConfig(**SMALL, **LAYERS, num_key_value_heads=2, sliding_window=4),
    "gemma, every other layer with a window": Gemma3TextConfig(
        **SMALL, **LAYERS, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
}
OTHERS = {
    "mamba": MambaConfig(**SMALL, num_hidden_layers=2),
    "rwkv": RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2),
    "bloom, no position_ids": BloomConfig(**SMALL, n_layer=2, n_head=2),
    "an encoder": BertConfig(**SMALL, **LAYERS),
}


def of(shape, attention=None):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(shape, attn_implementation=attention).eval()

"""A Llama-shaped language model in plain torch, so that benchmarks run where nothing but torch and numpy is installed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Causal self-attention with rotary positions; its weights are formed, and returned too, only when `eager` is set."""

    eager = False

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:  # (rows, length, hidden)
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, weights = rotate(q), rotate(k), None
        if self.eager:
            later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
            weights = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(later, -torch.inf).softmax(dim=-1)
            y = weights @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (rows, heads, length, width)
        return self.o_proj(y.transpose(1, 2).flatten(-2)), weights


def rotate(x: Tensor) -> Tensor:
    """Rotary position embedding of (rows, heads, length, width)."""
    length, width = x.shape[-2:]
    frequencies = 10_000 ** -(torch.arange(0, width, 2, device=x.device) / width)
    angles = torch.arange(length, device=x.device)[:, None] * frequencies  # (length, width / 2)
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., : width // 2], x[..., width // 2 :]
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


class Block(nn.Module):
    """Attention and gated perceptron, each behind a norm."""

    def __init__(self, hidden: int, heads: int, intermediate: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.attention = Attention(hidden, heads)
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.up_proj = nn.Linear(hidden, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))[0]
        y = self.mlp_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class LanguageModel(nn.Module):
    """Tied embedding, `layers` blocks, next-token cross-entropy."""

    def __init__(self, vocabulary: int = 256, hidden: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, hidden)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(hidden, heads, 3 * hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(hidden)

    def set_attn_implementation(self, name: str) -> None:
        """`eager` forms attention weights, anything else does not; named as in transformers."""
        for block in self.blocks:
            block.attention.eager = name == "eager"

    def forward(self, tokens: Tensor) -> Tensor:
        """Mean loss in nats per token of rows of tokens, (rows, length)."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x[:, :-1]), self.embed.weight)
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

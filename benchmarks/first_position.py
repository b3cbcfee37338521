"""How large rounding makes a gradient that is zero: of the first position's query, beside the largest of its row.

    python benchmarks/first_position.py --output benchmarks/results/first_position.json

The first position of a causal model has only itself to look at, so the gradient of its query is zero in real arithmetic.
`cegm.context.scores.ROUNDING` says below which share of its row's largest a gradient counts as such rounding. Measured
on Llamas of two layers with random tokens, after every 20 of 60 steps of AdamW, in float32.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from cegm.context.scores import ROUNDING


def first_of_its_row(width: int, length: int, steps: int = 60, seed: int = 0) -> tuple[float, float]:
    """Over all rows and layers seen: the largest share at the first position, the smallest at any other."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "vocab_size": 64}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    shares: list[Tensor] = []

    def see(module: torch.nn.Module, inputs: object, output: Tensor) -> None:
        output.register_hook(lambda gradient: shares.append(gradient.abs().amax(-1)))  # (rows, positions)

    hooks = [layer.self_attn.q_proj.register_forward_hook(see) for layer in model.model.layers]
    for step in range(steps):
        tokens = torch.randint(0, 64, (4, length))
        optimizer.zero_grad()
        seen = len(shares)
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        if step % 20:
            del shares[seen:]
    for hook in hooks:
        hook.remove()
    relative = torch.cat([each / each.amax(-1, keepdim=True) for each in shares])
    others = relative[:, 1:-1]  # the last position has no next token, so no loss
    return float(relative[:, 0].max()), float(others[others > 0].min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for width, length in itertools.product((32, 128, 256), (16, 64, 256)):
        first, smallest = first_of_its_row(width, length)
        rows.append({"width": width, "positions": length, "first": first, "smallest_other": smallest})
        print(f"width {width:4} positions {length:4}  first {first:.2e}  smallest other {smallest:.2e}", flush=True)
    floor = ROUNDING * torch.finfo(torch.float32).eps
    facts = {
        "torch": torch.__version__,
        "hardware": "CPU",
        "floor": floor,
        "largest_first": max(r["first"] for r in rows),
    }
    arguments.output.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Which weights of 25 families of models follow Algorithm 1, which of them meet contexts, what is left to AdamW and why.

    python benchmarks/families.py --table docs/models.md   # writes the table
    python benchmarks/families.py --check docs/models.md   # ends with 1 where the page says something else

Shares are those of a published model, in its true shape on the `meta` device, which holds no data. Whether a weight meets
contexts is seen in a tiny model of the same family, after two steps of training. Nothing is downloaded. A family more is an
entry more in `FAMILIES`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from cegm import CEGM

Shape = Mapping[str, Any]
Batch = dict[str, Any]
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
MAPS = {"context_map", "demand_map"}
"""What the state of a weight has when contexts came to it."""

VOCABULARY, LABELS, IMAGE = 64, 8, 32
TEXT: Shape = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DECODER: Shape = {
    **TEXT,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
ENCODER: Shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_3_8B: Shape = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def tokens(**more: Tensor) -> Batch:
    ids = torch.arange(4 * 12).view(4, 12) * 7 % (VOCABULARY - 3) + 3
    return {"input_ids": ids, "labels": ids, **more}


def images() -> Batch:
    return {"pixel_values": torch.randn(4, 3, IMAGE, IMAGE), "labels": torch.arange(4)}


def pairs() -> Batch:
    return {"input_ids": tokens()["input_ids"], "pixel_values": images()["pixel_values"], "return_loss": True}


def sounds() -> Batch:
    return {"input_features": torch.randn(4, 8, 32), "labels": tokens()["labels"]}


@dataclass(frozen=True, eq=False)
class Family:
    """One row of the table.

    Attributes:
        title: Name of the family.
        published: The model whose shape it is.
        build: Makes the model from a shape.
        shape: Where the published shape differs from the defaults of `build`.
        tiny: Where the tiny shape differs from the published one.
        batch: Arguments of the tiny model's forward pass that make it return a loss.
    """

    title: str
    published: str
    build: Callable[[Shape], nn.Module]
    shape: Shape
    tiny: Shape
    batch: Callable[[], Batch] = tokens


def of(config: str, model: str) -> Callable[[Shape], nn.Module]:
    """Builds a model of transformers with random weights."""
    return lambda shape: getattr(transformers, model)(getattr(transformers, config)(**shape))


class Translator(nn.Module):
    """torch's own Transformer between embeddings and a head, as its users build it."""

    def __init__(self, vocab_size: int, d_model: int, nhead: int, num_layers: int, dim_feedforward: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, d_model)
        self.transformer = nn.Transformer(d_model, nhead, num_layers, num_layers, dim_feedforward, batch_first=True)
        self.output = nn.Linear(d_model, vocab_size)

    def forward(self, input_ids: Tensor, labels: Tensor) -> transformers.utils.ModelOutput:
        hidden = self.transformer(self.embed(input_ids), self.embed(labels[:, :-1]))
        loss = nn.functional.cross_entropy(self.output(hidden).flatten(0, 1), labels[:, 1:].flatten())
        return transformers.utils.ModelOutput(loss=loss)


class Lightning(pytorch_lightning.LightningModule):
    """A model inside of a Lightning module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **batch: Any) -> Any:
        return self.network(**batch)


llama = of("LlamaConfig", "LlamaForCausalLM")


def with_adapters(shape: Shape) -> nn.Module:
    return get_peft_model(llama(shape), LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))


FAMILIES = (
    Family("Llama", "Llama 3 8B", llama, LLAMA_3_8B, DECODER),
    Family(
        "GPT-2",
        "GPT-2 small",
        of("GPT2Config", "GPT2LMHeadModel"),
        {},
        {**TEXT, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16},
    ),
    Family("GPT-NeoX", "GPT-NeoX-20B", of("GPTNeoXConfig", "GPTNeoXForCausalLM"), {}, {**TEXT, **ENCODER}),
    Family("Phi-3", "Phi-3-mini", of("Phi3Config", "Phi3ForCausalLM"), {}, DECODER),
    Family(
        "Qwen3",
        "Qwen3-8B",
        of("Qwen3Config", "Qwen3ForCausalLM"),
        {"intermediate_size": 12288, "num_hidden_layers": 36, "num_key_value_heads": 8},
        DECODER,
    ),
    Family(
        "Gemma3",
        "Gemma 3 1B",
        of("Gemma3TextConfig", "Gemma3ForCausalLM"),
        {
            "vocab_size": 262144,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
        },
        DECODER,
    ),
    Family(
        "Mixtral",
        "Mixtral-8x7B",
        of("MixtralConfig", "MixtralForCausalLM"),
        {},
        {**DECODER, "num_local_experts": 4},
    ),
    Family(
        "Qwen3-MoE",
        "Qwen3-30B-A3B",
        of("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
        {"num_hidden_layers": 48, "head_dim": 128},
        {**DECODER, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    Family(
        "DeepSeek-V3",
        "DeepSeek-V3",
        of("DeepseekV3Config", "DeepseekV3ForCausalLM"),
        {},
        {
            **TEXT,
            **ENCODER,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 24,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
        },
    ),
    Family(
        "gpt-oss",
        "gpt-oss-20b",
        of("GptOssConfig", "GptOssForCausalLM"),
        {"num_hidden_layers": 24, "num_local_experts": 32},
        {**DECODER, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    Family("BERT", "BERT base", of("BertConfig", "BertForMaskedLM"), {}, {**TEXT, **ENCODER}),
    Family(
        "T5",
        "T5 small",
        of("T5Config", "T5ForConditionalGeneration"),
        {},
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
    Family(
        "Whisper",
        "Whisper tiny",
        of("WhisperConfig", "WhisperForConditionalGeneration"),
        {},
        {
            **TEXT,
            "decoder_start_token_id": 1,
            "d_model": 32,
            "num_mel_bins": 8,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_source_positions": 16,
            "max_target_positions": 16,
        },
        sounds,
    ),
    Family(
        "CLIP",
        "CLIP ViT-B/32",
        of("CLIPConfig", "CLIPModel"),
        {},
        {
            "projection_dim": 24,
            "text_config": {**TEXT, **ENCODER, "max_position_embeddings": 16},
            "vision_config": {**ENCODER, "image_size": IMAGE, "patch_size": 8},
        },
        pairs,
    ),
    Family(
        "Mamba2",
        "Mamba-Codestral-7B",
        of("Mamba2Config", "Mamba2ForCausalLM"),
        {},
        {
            **TEXT,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_heads": 8,
            "head_dim": 8,
            "state_size": 8,
            "n_groups": 2,
        },
    ),
    Family(
        "RWKV",
        "RWKV-4 7B",
        of("RwkvConfig", "RwkvForCausalLM"),
        {},
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "attention_hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
        },
    ),
    Family(
        "torch's Transformer",
        "Vaswani et al., base",
        lambda shape: Translator(**shape),
        {"vocab_size": 37000, "d_model": 512, "nhead": 8, "num_layers": 6, "dim_feedforward": 2048},
        {"vocab_size": VOCABULARY, "d_model": 32, "nhead": 4, "num_layers": 2, "dim_feedforward": 48},
    ),
    Family(
        "ViT",
        "ViT-B/16",
        of("ViTConfig", "ViTForImageClassification"),
        {"num_labels": 1000},
        {**ENCODER, "num_labels": LABELS, "image_size": IMAGE, "patch_size": 8},
        images,
    ),
    Family(
        "Swin",
        "Swin-T",
        of("SwinConfig", "SwinForImageClassification"),
        {"num_labels": 1000},
        {
            "num_labels": LABELS,
            "image_size": IMAGE,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        images,
    ),
    Family(
        "ResNet",
        "ResNet-50",
        of("ResNetConfig", "ResNetForImageClassification"),
        {"num_labels": 1000},
        {"num_labels": LABELS, "embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 2]},
        images,
    ),
    Family(
        "ConvNeXt",
        "ConvNeXt-T",
        of("ConvNextConfig", "ConvNextForImageClassification"),
        {"num_labels": 1000},
        {"num_labels": LABELS, "num_stages": 2, "hidden_sizes": [16, 32], "depths": [2, 2]},
        images,
    ),
    Family(
        "BEiT",
        "BEiT-B/16",
        of("BeitConfig", "BeitForImageClassification"),
        {"num_labels": 1000, "use_relative_position_bias": True},
        {**ENCODER, "num_labels": LABELS, "image_size": IMAGE, "patch_size": 8, "out_indices": [2]},
        images,
    ),
    Family(
        "LFM2",
        "LFM2-1.2B",
        of("Lfm2Config", "Lfm2ForCausalLM"),
        {"hidden_size": 2048, "num_hidden_layers": 16, "full_attn_idxs": [2, 5, 8, 10, 12, 14]},
        {
            **TEXT,
            **ENCODER,
            "num_key_value_heads": 2,
            "full_attn_idxs": [1],
            "block_auto_adjust_ff_dim": False,
        },
    ),
    Family("a PEFT LoRA model", "Llama 3 8B, rank 16", with_adapters, LLAMA_3_8B, DECODER),
    Family("a Lightning wrapper", "Llama 3 8B", lambda shape: Lightning(llama(shape)), LLAMA_3_8B, DECODER),
)


def folded(name: str) -> str:
    """The name of a parameter without the numbers of its layers, which is what a tiny model and a large one share."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


@dataclass(frozen=True)
class Trained:
    """A tiny model after two steps: which kinds of parameters met contexts, and its loss before and after."""

    optimizer: CEGM
    seen: frozenset[str]
    before: float
    after: float


def train(family: Family, steps: int = 2) -> Trained:
    """Two steps on one batch, with contexts of both sides at each."""
    torch.manual_seed(0)
    model = family.build({**family.shape, **family.tiny}).train()
    optimizer = CEGM(model, lr=1e-3, refresh_every=1, power=-0.5)
    batch = family.batch()
    before = evaluate(model, batch)
    for _ in range(steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    met = {folded(a.name) for a in optimizer._assignments.values() if MAPS & optimizer.state[a.parameter].keys()}
    return Trained(optimizer, frozenset(met), before, evaluate(model, batch))


@torch.no_grad()
def evaluate(model: nn.Module, batch: Batch) -> float:
    """The loss without dropout."""
    loss = float(model.eval()(**batch).loss)
    model.train()
    return loss


@dataclass(frozen=True)
class Shares:
    """Weights of a published model by update, and by the reason that decided it."""

    seen: Counter[str]
    unseen: Counter[str]
    adamw: Counter[str]

    @property
    def weights(self) -> int:
        return self.seen.total() + self.unseen.total() + self.adamw.total()


def measure(family: Family, seen: frozenset[str]) -> Shares:
    """Shares in the published shape; `seen` are the kinds of parameters that met contexts in the tiny one."""
    with torch.device("meta"):
        optimizer = CEGM(family.build(family.shape), refresh_every=1, power=-0.5)
    shares = Shares(Counter(), Counter(), Counter())
    for assignment in optimizer._assignments.values():
        weights = assignment.parameter.numel()
        if assignment.role != "matrix":
            shares.adamw[assignment.reason] += weights
        elif folded(assignment.name) in seen:
            shares.seen[assignment.reason] += weights
        else:
            why = f"{assignment.reason}, never called" if assignment.places else assignment.reason
            shares.unseen[why] += weights
    return shares


def size(weights: int) -> str:
    """Such as 46.7 B."""
    thousands = int(math.log10(float(f"{weights:.3g}"))) // 3
    return f"{weights / 1000**thousands:#.3g} {'kMB'[thousands - 1]}".replace(". ", " ")


def share(part: int, whole: int) -> str:
    """Such as 96.9 %, `all` and `none` where it is exactly that."""
    if part in (0, whole):
        return "all" if part else "none"
    return "< 0.1 %" if part / whole < 0.0005 else f"{min(part / whole, 0.999):.1%}".replace("%", " %")


def by_reason(parts: Counter[str], whole: int) -> str:
    return "; ".join(f"{reason} {share(weights, whole)}" for reason, weights in parts.most_common()) or "-"


def row(family: Family, shares: Shares) -> str:
    whole = shares.weights
    cells = (
        family.title,
        family.published,
        size(whole),
        share(shares.seen.total(), whole),
        by_reason(shares.unseen, whole),
        by_reason(shares.adamw, whole),
    )
    return f"| {' | '.join(cells)} |"


def table(rows: list[str]) -> str:
    head = ("family", "in the shape of", "weights", "Algorithm 1 with contexts", "without, and why", "AdamW, and why")
    return "\n".join([f"| {' | '.join(head)} |", "|---|---|--:|--:|---|---|", *rows])


def page_with(made: str, page: str) -> str:
    """The page with this table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, help="page whose table is replaced")
    parser.add_argument("--check", type=Path, help="page whose table has to be this one")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    rows = []
    for family in FAMILIES:
        trained = train(family)
        rows.append(row(family, measure(family, trained.seen)))
        print(f"{rows[-1]} loss {trained.before:.3f} to {trained.after:.3f}", flush=True)
    if arguments.table:
        page = page_with(table(rows), arguments.table.read_text(encoding="utf-8"))
        arguments.table.write_text(page, encoding="utf-8")
    if arguments.check and table(rows) not in arguments.check.read_text(encoding="utf-8"):
        sys.exit(f"{arguments.check} has another table; write this one with --table {arguments.check}")


if __name__ == "__main__":
    main()

"""Every axis in its real form, to the end, for three small models trained on novels and a biology book.

    python benchmarks/real_forms.py --data ../shared/data --items 16 --steps 300 --folder runs/real --output benchmarks/results/real_forms

The models are a `tiny` that reads bytes (8192 positions), and shapes of GPT-2 (1024 positions) and Llama (4096, grouped queries)
with 2,000 byte pairs learned from the same text. So small they answer little; what is shown is that every axis ends, what each left
out and why, and how long it took.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    set_seed,
)

from cegm.lab.tasks.axis import Axis
from cegm.lab.tasks.evaluation import EvaluateConfig, Outcome, evaluate, summary, table
from cegm.lab.train.run import train
from cegm.lab.train.run_config import RunConfig

TEXTS = ("general_novels/corpus", "general_openstax_biology/contents")
SHAPES: dict[str, PretrainedConfig | None] = {
    "tiny": None,
    "gpt2": GPT2Config(n_embd=128, n_layer=2, n_head=4, n_positions=1024, initializer_range=0.1),
    "llama": LlamaConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.1,
        tie_word_embeddings=True,
    ),
}
VOCABULARY = 2000


def gather(data: Path, place: Path) -> Path:
    """One folder with links to the texts."""
    place.mkdir(parents=True, exist_ok=True)
    for source in TEXTS:
        for path in sorted((data / source).rglob("*")):
            if path.suffix in (".txt", ".md"):
                link = place / f"{Path(source).parts[0]}-{path.name}"
                link.unlink(missing_ok=True)
                link.symlink_to(path.resolve())
    return place


def shaped(name: str, config: PretrainedConfig | None, texts: Path, folder: Path) -> str:
    """Name of a fresh model, or a folder of random weights with a tokenizer of its own."""
    if config is None:
        return name
    place = folder / f"{name}-untrained"
    backend = ByteLevelBPETokenizer()
    backend.train(sorted(map(str, texts.iterdir())), VOCABULARY, special_tokens=["<eos>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token="<eos>", pad_token="<eos>")
    config.vocab_size, config.eos_token_id, config.bos_token_id = len(tokenizer), 0, 0
    set_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


def rows(model: str, outcomes: list[tuple[Axis, Outcome]]) -> Iterator[dict[str, object]]:
    """One row per axis: value, chance, items, what was left out."""
    for axis, outcome in outcomes:
        numbers = asdict(summary(axis, outcome.records))
        notes = [note for note in (outcome.reason, *outcome.warnings) if note]
        yield {
            "model": model,
            "axis": axis.name,
            **numbers,
            "seconds": round(outcome.seconds, 1),
            "left_out": "; ".join(notes),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of public sets")
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--models", default=",".join(SHAPES))
    parser.add_argument("--folder", type=Path, required=True, help="where texts, runs and evaluations go")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    texts = gather(arguments.data, arguments.folder / "texts")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.models.split(","):
        run = arguments.folder / name
        if not (run / "model").is_dir():
            start = shaped(name, SHAPES[name], texts, arguments.folder)
            train(
                RunConfig(
                    model_name_or_path=start, data=str(texts), max_steps=arguments.steps, output_dir=str(run), threads=1
                )
            )
        config = EvaluateConfig(
            model_name_or_path=str(run / "model"),
            data=str(arguments.data),
            items=arguments.items,
            output_dir=str(run / "evaluation"),
        )
        outcomes, _ = evaluate(config)
        print(table(outcomes))
        pd.DataFrame(rows(name, outcomes)).round(4).to_csv(arguments.output / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()

"""What a run is made of before it starts: text, tokenizer, model and rows. Whatever does not fit fails here, before anything is written."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from dataclasses import dataclass

import datasets
import torch
import transformers
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from cegm.train import resume
from cegm.train.config import RunConfig
from cegm.train.data import Corpus, load_corpus, rows_per_run
from cegm.train.folder import RunFolder
from cegm.train.model import load_model, load_tokenizer, weights_hash
from cegm.train.rows import training_rows


@dataclass(frozen=True)
class Parts:
    """The parts of one run.

    Attributes:
        corpus: Text, training and held out.
        tokenizer: The model's.
        model: Before the first step, in float32.
        rows: Training set for SFTTrainer.
        initial_hash: sha256 of the model's weights, hex.
    """

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    model: nn.Module
    rows: datasets.Dataset
    initial_hash: str


def start(config: RunConfig, folder: RunFolder) -> resume.Resumption | None:
    """Sets torch's threads, and checks that the folder is free or that there is a checkpoint to resume from, which is returned.

    Raises:
        ValueError: The folder holds a run already, no checkpoint is whole, or the launcher asks for shards.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1"):  # as accelerate itself reads it
        raise ValueError("cegm train shards by itself; launch it without FSDP and give --sharding fsdp")
    if config.sharding == "fsdp" and os.environ.get("WORLD_SIZE", "1") == "1":
        raise ValueError("sharding=fsdp needs several processes: torchrun --nproc_per_node 2 -m cegm.cli train ...")
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.resume_from_checkpoint is not None:
        resumption = resume.find(config, folder)
        for note in resumption.notes if is_main_process() else ():
            print(f"cegm: warning: {note}", file=sys.stderr)
        return resumption
    if is_main_process():  # the others may come when it has begun to write
        folder.require_free()
    return None


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks, also before torch.distributed is set up."""
    return os.environ.get("RANK", "0") == "0"


def prepare(config: RunConfig, processes: int = 1) -> Parts:
    """Loads or makes all parts.

    Args:
        config: The run.
        processes: Processes that share the training rows.

    Raises:
        ValueError: Something is missing or does not fit together, in one line.
    """
    corpus = load_corpus(config, processes)
    tokenizer = load_tokenizer(config)
    if corpus.kind == "messages" and tokenizer.chat_template is None:
        name = config.model_name_or_path
        raise ValueError(
            f"{config.data} holds messages but the tokenizer of {name} has no chat template; use text rows"
        )
    model = load_model(config, tokenizer)
    rows = training_rows(corpus, tokenizer, config.max_length, rows_per_run(config, processes), config.seed)
    return Parts(corpus, tokenizer, model, rows, weights_hash(model))


def count(model: nn.Module) -> int:
    """Parameters of a model; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def quieten() -> None:
    """Libraries say nothing below an error; what matters to the user is said by this package."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    for name in ("accelerate", "trl", "peft", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(torch\.utils|transformers|trl|accelerate|peft|datasets)\b")

"""What a run is made of before it starts: text, tokenizer, model and rows. Whatever does not fit fails here, before anything is written."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import datasets
import transformers
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from cegm.lab.files import MOST_NAMES, told
from cegm.lab.train import resume
from cegm.lab.train.conversations import Losses, conversation_rows
from cegm.lab.train.data import Corpus, load_corpus, rows_per_run
from cegm.lab.train.evaluate import ValidationSet, from_dataset, from_rows
from cegm.lab.train.folder import RunFolder
from cegm.lab.train.model import load_model, load_tokenizer, weights_hash
from cegm.lab.train.replay import new_rows, with_replay
from cegm.lab.train.rows import training_rows, validation_rows
from cegm.lab.train.run_config import RunConfig
from cegm.lab.train.trainer import RowCollator


@dataclass(frozen=True)
class Parts:
    """The parts of one run.

    Attributes:
        corpus: Text, training and held out.
        tokenizer: The model's.
        model: Before the first step, in float32.
        rows: Training set, as `training_rows` makes it.
        held_out: What is validated on.
        initial_hash: sha256 of the model's weights, hex; empty for shapes alone.
        left_out: What of the data is in neither, for files to keep: names by reason, and counts of rows.
        notes: The same in sentences.
    """

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    model: nn.Module
    rows: datasets.Dataset
    held_out: ValidationSet
    initial_hash: str
    left_out: dict[str, Any]
    notes: list[str]


def start(config: RunConfig, folder: RunFolder) -> resume.Resumption | None:
    """Checks that the folder is free or that there is a checkpoint to resume from, which is returned."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1"):  # as accelerate itself reads it
        raise ValueError("cegm train shards by itself; launch it without FSDP and give --sharding fsdp")
    if config.sharding == "fsdp" and os.environ.get("WORLD_SIZE", "1") == "1":
        raise ValueError("sharding=fsdp needs several processes: torchrun --nproc_per_node 2 -m cegm train ...")
    if config.resume_from_checkpoint is not None:
        resumption = resume.find(config, folder)
        tell(resumption.notes)
        return resumption
    if is_main_process():  # the others may come when it has begun to write
        folder.require_free()
    return None


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks, also before torch.distributed is set up."""
    return os.environ.get("RANK", "0") == "0"


def prepare(config: RunConfig, processes: int = 1, has_weights: bool = True) -> Parts:
    """Loads or makes all parts, for so many processes; without weights the model is on the meta device.

    ValueError where something is missing or does not fit together.
    """
    corpus = load_corpus(config, processes)
    tokenizer = load_tokenizer(config)
    if corpus.kind == "messages" and tokenizer.chat_template is None:
        name = config.model_name_or_path
        raise ValueError(
            f"{config.data} holds messages but the tokenizer of {name} has no chat template; use text rows"
        )
    model = load_model(config, tokenizer, has_weights)
    made = (
        _packed(config, corpus, tokenizer, processes) if corpus.kind == "text" else _one_each(config, corpus, tokenizer)
    )
    if config.replay:
        rows = with_replay(config, made.rows, rows_per_run(config, processes), model, tokenizer)
        made = made._replace(rows=rows)
    left_out: dict[str, Any] = {r: {"count": len(n), "first": n[:MOST_NAMES]} for r, n in corpus.left_out.items()}
    sources = " and ".join(filter(None, (config.data, config.validation_data)))
    notes = [f"left out of {sources}: {told(corpus.left_out)}"] if corpus.left_out else []
    for which, losses in made.losses.items():
        left_out[f"{which} rows"] = losses.facts()
        notes += losses.told(which, config.max_length)
    initial_hash = weights_hash(model) if has_weights else ""
    return Parts(corpus, tokenizer, model, made.rows, made.held_out, initial_hash, left_out, notes)


class _Made(NamedTuple):
    """Rows of a run, and what they lack."""

    rows: datasets.Dataset
    held_out: ValidationSet
    losses: dict[str, Losses]


def _packed(config: RunConfig, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, processes: int) -> _Made:
    wanted = new_rows(config, rows_per_run(config, processes))
    rows = training_rows(corpus, tokenizer, config.max_length, wanted, config.seed)
    packed = validation_rows(corpus, tokenizer, config.max_length, config.eval_rows)
    return _Made(rows, from_rows(packed, config.per_device_train_batch_size), {})


def _one_each(config: RunConfig, corpus: Corpus, tokenizer: PreTrainedTokenizerBase) -> _Made:
    training = conversation_rows(corpus.train, tokenizer, config.max_length, "training")
    validation = conversation_rows(corpus.validation, tokenizer, config.max_length, "validation")
    collator, batch = RowCollator(pad_token_id=tokenizer.pad_token_id), config.per_device_train_batch_size
    held_out = from_dataset(validation.rows, collator, tokenizer, config.eval_rows, batch)
    return _Made(training.rows, held_out, {"training": training.losses, "validation": validation.losses})


def tell(notes: Iterable[str]) -> None:
    """Says what the user should know before a run begins, once for all processes."""
    for note in notes if is_main_process() else ():
        print(f"cegm: warning: {note}", file=sys.stderr)


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

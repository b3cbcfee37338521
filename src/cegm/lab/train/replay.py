"""Replay: home text among the rows of a run, in place of as many new ones."""

from __future__ import annotations

from typing import Any

import datasets
import torch

from cegm.lab.train.home_text import home_rows
from cegm.lab.train.run_config import RunConfig


def new_rows(config: RunConfig, rows: int | None) -> int | None:
    """Of so many rows that a run draws, how many are new text; None for all there are."""
    return None if rows is None else max(1, rows - round(config.replay * rows))


def with_replay(
    config: RunConfig, rows: datasets.Dataset, drawn: int | None, model: Any, tokenizer: Any
) -> datasets.Dataset:
    """The training set with home text behind it, which the order of the run mixes in; text that is too short comes again.

    Args:
        config: The run; its `replay` is the share of home text in the result.
        rows: New text.
        drawn: Rows that the run draws; None where it goes through all.
        model: Which writes own text; on the meta device it writes zeros.
        tokenizer: The model's.
    """
    exact = drawn is not None and len(rows) == new_rows(config, drawn)
    count = drawn - len(rows) if exact and drawn is not None else round(len(rows) * config.replay / (1 - config.replay))
    if count == 0:
        return rows
    if model.device.type == "meta":
        home = torch.zeros(1, config.max_length, dtype=torch.int64)
    else:
        home, _ = home_rows(model, tokenizer, config.replay_data, count, config.max_length, config.seed)
    tokens = home[torch.arange(count) % len(home)].tolist()
    numbers = range(max(rows["row"]) + 1, max(rows["row"]) + 1 + count)
    old = datasets.Dataset.from_dict({"input_ids": tokens, "labels": tokens, "row": list(numbers)})
    return datasets.concatenate_datasets([rows, old.cast(rows.features)])

"""Replay: how many rows are home text, and that all others are those of the run without it."""

import datasets
import pytest
import torch

from cegm.lab.train import replay
from cegm.lab.train.replay import new_rows, with_replay
from cegm.lab.train.run_config import RunConfig

LENGTH = 4


def run(share, **options):
    return RunConfig(model_name_or_path="somewhere", replay=share, max_length=LENGTH, **options)


def new(count):
    tokens = [[index] * LENGTH for index in range(count)]
    return datasets.Dataset.from_dict({"input_ids": tokens, "labels": tokens, "row": list(range(count))})


@pytest.fixture
def home(monkeypatch):
    """Home text of three rows, told by their first token."""
    asked = []

    def rows(model, tokenizer, text, count, length, seed):
        asked.append((text, count, length, seed))
        return torch.arange(100, 103)[:, None].expand(3, LENGTH), {}

    monkeypatch.setattr(replay, "home_rows", rows)
    return asked


@pytest.mark.parametrize("drawn", [2, 7, 40, 101])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.125, 0.5, 0.9])
def test_a_run_draws_as_many_rows_as_without_and_the_share_of_them_is_home_text(home, share, drawn):
    config = run(share)
    rows = with_replay(config, new(new_rows(config, drawn)), drawn, torch.nn.Linear(1, 1).weight, None)
    old = [ids for ids in rows["input_ids"] if ids[0] >= 100]
    assert len(rows) == drawn
    assert len(old) == min(round(share * drawn), drawn - 1)
    assert len(set(rows["row"])) == drawn


def test_of_a_run_through_all_data_home_text_is_the_share_of_the_whole(home):
    rows = with_replay(run(0.25), new(30), None, torch.nn.Linear(1, 1).weight, None)
    assert len(rows) == 40
    assert rows["input_ids"][:30] == new(30)["input_ids"]
    assert [ids[0] for ids in rows["input_ids"][30:]] == [100, 101, 102] * 3 + [100]  # it comes again
    assert home == [("own", 10, LENGTH, 0)]


def test_shapes_alone_write_nothing(home):
    rows = with_replay(run(0.5), new(2), 4, torch.nn.Linear(1, 1, device="meta").weight, None)
    assert len(rows) == 4
    assert not home

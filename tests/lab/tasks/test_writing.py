"""Rows written in step: equal to each row read anew, for every architecture, with rows that are dropped on the way."""

import pytest
import torch

pytest.importorskip("transformers")

from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
)

from cegm.lab.tasks.writing import Rereader, Writer, writer

VOCABULARY = 60
ROWS = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8], [4]]

SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "initializer_range": 0.3}
LAYERS = {"num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4}
SHAPES = {
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3),
    "llama, shared keys": LlamaConfig(**SMALL, **LAYERS, num_key_value_heads=2),
    "mistral, window of 4": MistralConfig(**SMALL, **LAYERS, num_key_value_heads=2, sliding_window=4),
    "bloom, no position_ids": BloomConfig(**SMALL, n_layer=2, n_head=2),
}


def of(shape):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(shape).eval()


def written(pen, tokens):
    return list(zip(*(pen.write() for _ in range(tokens)), strict=True))


@pytest.mark.parametrize("name", SHAPES)
def test_rows_of_any_length_are_continued_as_if_read_anew(name):
    model = of(SHAPES[name])
    found = written(Writer(model, ROWS), 12)
    assert found == written(Rereader(model, ROWS), 12)
    assert len(set(found)) == len(ROWS), "a model that says the same to all proves nothing"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", [Writer, Rereader])
def test_those_that_are_kept_go_on_unchanged(name, kind):
    model = of(SHAPES[name])
    whole = written(Rereader(model, ROWS), 8)
    pen = kind(model, ROWS)
    assert written(pen, 3) == [row[:3] for row in whole]
    pen.keep([2, 0])
    assert written(pen, 2) == [whole[2][3:5], whole[0][3:5]]
    pen.keep([1])
    assert written(pen, 3) == [whole[0][5:]]


def test_every_token_is_read_once():
    model, read = of(SHAPES["gpt2"]), []
    model.register_forward_pre_hook(lambda _, args, given: read.append(given["input_ids"].shape), with_kwargs=True)
    written(Writer(model, ROWS), 4)
    assert read == [(4, 12), (4, 1), (4, 1), (4, 1)]


def test_a_running_state_is_never_padded():
    model = of(MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, initializer_range=0.3))
    pen = writer(model, ROWS)
    assert isinstance(pen, Rereader)
    assert written(pen, 4) == [row for alone in ROWS for row in written(writer(model, [alone]), 4)]
    assert isinstance(writer(of(SHAPES["gpt2"]), ROWS), Writer)

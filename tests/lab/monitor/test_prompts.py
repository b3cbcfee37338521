"""How surprising prompts are: read once, kept as numbers, and only of what the roll-out keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from cegm.lab.monitor.prompts import PromptReader, asked
from cegm.lab.monitor.request_tail import Line
from cegm.lab.records import Request, line
from cegm.lab.rollout.kept_texts import KeptText
from cegm.lab.rollout.rollout_state import RolloutFolder
from cegm.lab.tasks.examinee import ReadToken
from cegm.lab.train.model import byte_tokenizer

Draw = Callable[..., Request]


class Model:
    """Needs a bit for every letter, and counts what it reads."""

    def __init__(self) -> None:
        self.read_so_far: list[str] = []

    def read(self, texts: list[str]) -> list[list[ReadToken]]:
        self.read_so_far += texts
        return [[ReadToken(i, i + 1, -0.6931471805599453, True) for i in range(len(text))] for text in texts]


def lines(draw: Draw, numbers: range) -> list[Line]:
    return [Line(0, draw(number=number), b"") for number in numbers]


@pytest.fixture
def reader(rollout: Path) -> PromptReader:
    with (rollout / "texts.jsonl").open("w", encoding="utf-8") as file:
        for number in range(3):
            prompt = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x" * number}])
            file.write(
                line(KeptText(number=number, time="", variant="champion", shadow=False, prompt=prompt, answer=""))
                + "\n"
            )
    return reader_of(rollout)


def reader_of(rollout: Path) -> PromptReader:
    found = PromptReader("some model", RolloutFolder(rollout))
    found.__dict__["_examinee"] = Model()
    return found


def test_prompts_are_read_once_and_their_numbers_outlive_their_texts(
    reader: PromptReader, rollout: Path, draw: Draw
) -> None:
    found = reader.filled(lines(draw, range(4)))
    assert [each.request.prompt_bits_per_byte for each in found] == [None, pytest.approx(1.0), pytest.approx(1.0), None]
    reader.filled(lines(draw, range(4)))
    assert reader._examinee.read_so_far == ["", "x", "xx"]
    (rollout / "texts.jsonl").unlink()
    again = reader_of(rollout)
    assert [each.request.prompt_bits_per_byte for each in again.filled(lines(draw, range(4)))] == [
        each.request.prompt_bits_per_byte for each in found
    ]
    assert again._examinee.read_so_far == []
    assert "x" not in (rollout / "prompts.jsonl").read_text()


def test_a_real_model_says_how_many_bits_it_needs(reader: PromptReader, tmp_path: Path, draw: Draw) -> None:
    """With random weights: eight for a byte, up to what chance has given them."""
    tokenizer = byte_tokenizer()
    settings = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(settings).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (found,) = PromptReader(str(tmp_path / "model"), RolloutFolder(tmp_path)).filled(lines(draw, range(2, 3)))
    assert found.request.prompt_bits_per_byte == pytest.approx(8.0, abs=0.3)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("plain text", "plain text"),
        ([{"role": "user", "content": "first"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "last"}], "last"),
        ([{"role": "user", "content": [{"type": "text", "text": "in parts"}]}], '[{"type": "text", "text": "in parts"}]'),
        ([{"role": "system", "content": "nobody asks"}], ""),
        (None, ""),
    ],
)  # fmt: skip
def test_what_the_user_said_last_is_read_of_every_form_of_prompt(prompt: object, said: str) -> None:
    assert asked(json.dumps(prompt)) == said

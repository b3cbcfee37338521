"""Conversations: what a model reads, what it answers, and how they end."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

for extra in ("trl", "msgspec"):
    pytest.importorskip(extra)

from cegm.lab.chat import ChatConfig, converse  # noqa: E402
from cegm.lab.cli import main  # noqa: E402
from cegm.lab.train.model import byte_tokenizer  # noqa: E402
from models import llama  # noqa: E402

CONFIG = ChatConfig("any", max_new_tokens=8, temperature=0.0)


@pytest.fixture
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture
def model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    return llama(vocabulary=len(tokenizer), pad_token_id=tokenizer.pad_token_id).eval()


def likeliest(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The answer token by token, without generation's own loop."""
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    written: list[int] = []
    while len(written) < CONFIG.max_new_tokens:
        following = int(model(torch.tensor([[*ids, *written]])).logits[0, -1].argmax())
        written.append(following)
        if following == model.generation_config.eos_token_id:
            break
    return str(tokenizer.decode(written, skip_special_tokens=True))


def test_every_answer_is_to_all_that_was_said(model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}]
    first = likeliest(model, tokenizer, said)
    again = [*said, {"role": "assistant", "content": first}, {"role": "user", "content": "two"}]
    second = likeliest(model, tokenizer, again)
    converse(model, tokenizer, ["one", "", "two"], replace(CONFIG, system="be brief"))
    assert capsys.readouterr().out == f"{first}\n{second}\n"


def test_a_new_conversation_knows_nothing_of_the_last(
    model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = likeliest(model, tokenizer, [{"role": "user", "content": "two"}])
    converse(model, tokenizer, ["one", "/new", "two"], CONFIG)
    assert capsys.readouterr().out.endswith(f"\n{alone}\n")


def test_without_a_chat_template_a_line_is_gone_on_with(
    model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.chat_template = None
    converse(model, tokenizer, ["one", "one"], CONFIG)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_what_is_longer_than_the_model_reads_is_said_and_forgotten(
    model: Any, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    converse(model, tokenizer, ["long " * 40, "two"], CONFIG)
    told = capsys.readouterr()
    assert told.err.startswith("cegm: that is more than the 128 tokens which the model reads")
    assert told.out == likeliest(model, tokenizer, [{"role": "user", "content": "two"}]) + "\n"


def test_the_command_talks_with_the_model_of_a_run_until_the_input_ends(
    model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path / "run" / "model")
    tokenizer.save_pretrained(tmp_path / "run" / "model")
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n"))
    assert main(["chat", str(tmp_path / "run"), "--temperature", "0", "--max_new_tokens", "8"]) == 0
    assert capsys.readouterr().out == likeliest(model, tokenizer, [{"role": "user", "content": "one"}]) + "\n"


def test_what_it_cannot_talk_with_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "tiny"]) == 2
    assert "has random weights; train it first" in capsys.readouterr().err
    with pytest.raises(ValueError, match="with which model"):
        ChatConfig()

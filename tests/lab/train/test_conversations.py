"""Rows of conversations are those that TRL makes; what `max_length` takes of them is counted to the token."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import datasets
import pytest

pytest.importorskip("trl")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl.trainer.sft_trainer import SFTConfig, SFTTrainer

from cegm.lab.train.conversations import IGNORED, conversation_rows
from cegm.lab.train.model import CHAT_TEMPLATE, byte_tokenizer
from openers import OPENINGS, opener


def message(role: str, size: int) -> dict[str, str]:
    return {"role": role, "content": (role + " ") * size}


ROWS: dict[str, list[dict[str, Any]]] = {
    "completion": [{"prompt": "ask " * n, "completion": "say " * (31 - n)} for n in range(1, 30)],
    "turns": [{"prompt": [message("user", n)], "completion": [message("assistant", 20 - n)]} for n in range(1, 20)],
    "messages": [{"messages": [message("user", n), message("assistant", n)]} for n in range(1, 20)],
    "ended": [{"prompt": "ask", "completion": "say</s>" if n % 2 else "say <eos>"} for n in range(5)],
}


def prepared_by_trl(
    rows: list[dict[str, Any]], tokenizer: Any, max_length: int, tmp_path: Any
) -> dict[str, list[list[int]]]:
    trainer: Any = SimpleNamespace(_tokenizer=tokenizer, chat_template=None, completion_only_loss="prompt" in rows[0])
    table = datasets.Dataset.from_list([{**row, "row": number} for number, row in enumerate(rows)])
    settings = SFTConfig(output_dir=str(tmp_path), max_length=max_length, use_cpu=True, bf16=False)
    made = SFTTrainer._prepare_dataset(trainer, table, tokenizer, settings, False, None, "train")
    return {name: list(made[name]) for name in ("input_ids", "labels", "row")}


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("how", ["fresh", "nothing", "begin", "two"])
@pytest.mark.parametrize("max_length", [40, 90, 1000])
def test_rows_are_those_of_trl(kind: str, how: str, max_length: int, tmp_path: Any) -> None:
    tokenizer = byte_tokenizer() if how == "fresh" else opener(how)
    tokenizer.chat_template = "{{ bos_token }}" * (how in OPENINGS) + CHAT_TEMPLATE
    own = conversation_rows(ROWS[kind], tokenizer, max_length, "training").rows
    expected = prepared_by_trl(ROWS[kind], tokenizer, max_length, tmp_path)
    assert {name: list(own[name]) for name in expected} == expected


@pytest.mark.parametrize("max_length", [8, 12, 100])
def test_what_is_lost_is_counted(max_length: int) -> None:
    """Prompts of 4, 10 and 30 bytes with completions of 6, and the end of each."""
    rows = [{"prompt": "p" * size, "completion": "123456"} for size in (4, 10, 30)]
    made = conversation_rows(rows, byte_tokenizer(), max_length, "training")
    kept = {8: [4], 12: [7, 2], 100: [7, 7, 7]}[max_length]
    assert [sum(label != IGNORED for label in labels) for labels in made.rows["labels"]] == kept
    losses = made.losses
    assert (losses.rows, losses.dropped, losses.tokens) == (3, 3 - len(kept), 21)
    assert losses.lost == 21 - sum(kept)
    assert losses.cut == sum(number < 7 for number in kept)
    assert made.rows["row"] == list(range(len(kept)))
    told = losses.told("training", max_length)
    assert len(told) == (max_length < 100)
    assert all(f"max_length={max_length}" in sentence for sentence in told)
    assert all(f"{losses.lost} of 21 tokens" in sentence for sentence in told)


def test_messages_are_counted_too() -> None:
    rows = [{"messages": [{"role": "user", "content": "x" * size}]} for size in (1, 50)]
    made = conversation_rows(rows, byte_tokenizer(), 20, "validation")
    assert (made.losses.dropped, made.losses.cut) == (0, 1)
    assert made.losses.lost == len("user: ") + 50 + 1 - 20
    assert "1 of 2 validation rows were cut (truncated)" in made.losses.told("validation", 20)[0]


def test_nothing_left_is_refused_and_names_the_option() -> None:
    rows = [{"prompt": "p" * 40, "completion": "c"}] * 3
    with pytest.raises(ValueError, match="max_length=40 leaves nothing to learn of any of the 3 training rows"):
        conversation_rows(rows, byte_tokenizer(), 40, "training")
    assert len(conversation_rows(rows, byte_tokenizer(), 41, "training").rows) == 3


def test_a_prompt_that_ends_within_a_token_is_told() -> None:
    """The classical slip: white space at the end of the prompt, which belongs to the word behind it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: index for index, name in enumerate([*alphabet, "<eos>", "\u0120c"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("\u0120", "c")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
    slips = conversation_rows(
        [{"prompt": "p ", "completion": "c"}, {"prompt": "p", "completion": " c"}], tokenizer, 9, "training"
    )
    assert slips.losses.merged == 1
    assert slips.rows["labels"][0] == slips.rows["labels"][1]
    assert "in 1 of 2 training rows the end of the prompt" in slips.losses.told("training", 9)[0]


@pytest.mark.parametrize("how", ["begin and end", "end"])
def test_a_tokenizer_that_ends_texts_does_not_end_prompts(how: str) -> None:
    made = conversation_rows([{"prompt": "ab", "completion": "cd"}], opener(how), 20, "training")
    assert made.losses.merged == 0
    assert made.rows["input_ids"][0][-2:] == [opener(how).convert_tokens_to_ids("d"), 1]
    assert made.rows["input_ids"][0].count(1) == 1


def test_a_template_that_refuses_is_told_with_its_row() -> None:
    tokenizer = byte_tokenizer()
    refusal = "{% if m.role == 'system' %}{{ raise_exception('no\\nsystem here') }}{% endif %}"
    tokenizer.chat_template = f"{{% for m in messages %}}{refusal}{{{{ m.content }}}}{{% endfor %}}"
    rows = [{"messages": [message("user", 1)]}, {"messages": [message("system", 1)]}]
    with pytest.raises(
        ValueError, match="training row 1 does not fit the chat template of the tokenizer: no system here"
    ):
        conversation_rows(rows, tokenizer, 20, "training")


def test_names_may_have_other_types_in_other_rows() -> None:
    rows = [{"messages": [{"role": "user", "content": "a", "name": name}]} for name in (1, "one", None)]
    assert len(conversation_rows(rows, byte_tokenizer(), 20, "training").rows) == 3

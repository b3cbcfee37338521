"""Packing into rows, the text behind them, and tokenizers that survive saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from cegm.lab.train.data import Corpus
from cegm.lab.train.model import END, byte_tokenizer
from cegm.lab.train.rows import training_rows, validation_rows
from openers import END as END_ID
from openers import OPENINGS, TEMPLATES, opener

TEXT = "Grüße, 世界! 🌍 some words\n\n  and  spaces <pad "


def test_byte_tokenizer_round_trip(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for each in (tokenizer, loaded):
        ids = each(TEXT)["input_ids"]
        assert len(ids) == len(TEXT.encode())
        assert each.decode(ids) == TEXT
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.eos_token_id, loaded.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert loaded.chat_template == tokenizer.chat_template
    assert len(tokenizer) == 258


def test_rows_are_the_documents_in_order_with_an_end_after_each() -> None:
    tokenizer = byte_tokenizer()
    corpus = Corpus("text", ["abcde", "fgh", "ijklmnop"], [])
    rows = np.asarray(training_rows(corpus, tokenizer, 4, None, seed=3)["input_ids"])
    assert rows.shape == (4, 4)  # 19 tokens: the last three are dropped
    *whole, last = tokenizer.decode(rows.reshape(-1)).split(END)
    assert len(whole) == 2
    remaining = set(corpus.train) - set(whole)
    assert len(remaining) == 1
    assert remaining.pop().startswith(last)


def test_order_depends_on_the_seed_alone_and_every_row_is_wanted() -> None:
    tokenizer = byte_tokenizer()
    corpus = Corpus("text", [f"document number {index} " * 30 for index in range(40)], [])
    first = training_rows(corpus, tokenizer, 16, 50, seed=1)["input_ids"]
    assert len(first) == 50
    assert first == training_rows(corpus, tokenizer, 16, 50, seed=1)["input_ids"]
    assert first != training_rows(corpus, tokenizer, 16, 50, seed=2)["input_ids"]


def test_a_short_run_sees_more_than_one_document_of_a_large_corpus() -> None:
    corpus = Corpus("text", [(letter * 9 + " ") * 10_000 for letter in "abcdefgh"], [])
    rows = training_rows(corpus, byte_tokenizer(), 16, 2000, seed=0)
    assert len({row[0] for row in rows["input_ids"]}) >= 4


def test_all_tokens_are_there_when_no_number_is_given() -> None:
    tokenizer = byte_tokenizer()
    corpus = Corpus("text", ["x" * 40_000 + " y"], [])
    rows = training_rows(corpus, tokenizer, 8, None, seed=0)
    assert len(rows) == (40_002 + 1) // 8


def test_too_little_text() -> None:
    corpus = Corpus("text", ["ab"], ["cd"])
    with pytest.raises(ValueError, match="the training text has 3 tokens, too little for one row of max_length=8"):
        training_rows(corpus, byte_tokenizer(), 8, 4, seed=0)
    with pytest.raises(ValueError, match="the validation text has 3 tokens, too little for one row of max_length=8"):
        validation_rows(corpus, byte_tokenizer(), 8, 4)


def test_validation_bytes_are_those_of_the_predicted_tokens() -> None:
    corpus = Corpus("text", [], [TEXT * 3, TEXT])
    rows = validation_rows(corpus, byte_tokenizer(), 16, 100)
    ends = int((rows.tokens[:, 1:] == 1).sum())
    assert rows.bytes == rows.tokens[:, 1:].size - ends  # one byte per token, and none for the end of a document
    stream = (TEXT * 3).encode() + b"\x00" + TEXT.encode()
    text = byte_tokenizer().decode(rows.tokens.reshape(-1), skip_special_tokens=True)
    assert stream.replace(b"\x00", b"").decode().startswith(text)


def test_bytes_of_words_cover_the_text_between_them() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "ab": 2, "ü": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>")
    rows = validation_rows(Corpus("text", [], ["ab ü  ab \n"]), tokenizer, 4, 9)
    assert rows.tokens.tolist() == [[2, 3, 2, 1]]
    assert rows.bytes == len(" ü  ab \n".encode())


@pytest.mark.parametrize("how", TEMPLATES)
def test_every_document_begins_as_its_tokenizer_begins_a_text(how: str) -> None:
    """Also one that is cut into pieces, and there only."""
    tokenizer, first = opener(how), OPENINGS.get(how, ())
    documents = ["short", "Letters " + "letters " * 700, "始" + "語" * 2000]
    rows = training_rows(Corpus("text", documents, []), tokenizer, 2, None, seed=0)
    found = tuple(token for row in rows["input_ids"] for token in row)
    text = sum(len(document.encode()) for document in documents)
    assert 0 <= text + 3 * (len(first) + 1) - len(found) < 2
    assert sum(token > 3 for token in found) in (text, text - 1)
    for document in documents:
        begins = (*first, *tokenizer(document[:5], add_special_tokens=False)["input_ids"])
        assert sum(found[place : place + len(begins)] == begins for place in range(len(found))) == 1


@pytest.mark.parametrize("how", TEMPLATES)
def test_validation_documents_begin_alike_and_their_bytes_are_those_of_the_text(how: str) -> None:
    tokenizer, first = opener(how), list(OPENINGS.get(how, ()))
    documents = [TEXT * 2, "and more", TEXT]
    rows = validation_rows(Corpus("text", [], documents), tokenizer, 8, 100)
    expected = [
        token
        for text in documents
        for token in [*first, *tokenizer(text, add_special_tokens=False)["input_ids"], END_ID]
    ]
    assert rows.tokens.reshape(-1).tolist() == expected[: rows.tokens.size]
    assert len(expected) - rows.tokens.size < 8
    assert rows.bytes == int((rows.tokens[:, 1:] > 3).sum()), "one byte per token of text, none for any other"


def test_without_an_opening_rows_are_what_they_always_were() -> None:
    """The first rows of a text with words of 1 to 9 letters, by a hash from before documents had openings."""
    import hashlib
    import random

    draw = random.Random(11)
    documents = [" ".join("".join(draw.choices("abcdeü", k=draw.randint(1, 9))) for _ in range(3000)) for _ in range(4)]
    rows = np.asarray(training_rows(Corpus("text", documents, []), byte_tokenizer(), 16, 400, seed=5)["input_ids"])
    held_out = validation_rows(Corpus("text", [], documents), byte_tokenizer(), 16, 50)
    digest = hashlib.sha256(rows.astype("<i8").tobytes() + held_out.tokens.astype("<i8").tobytes()).hexdigest()
    assert (digest[:16], held_out.bytes) == ("9323605c76d9f851", 750)

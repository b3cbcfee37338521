"""What tokenizers put in front of texts, and the bytes behind their tokens."""

from __future__ import annotations

import pytest

pytest.importorskip("trl")

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cegm.lab.train.model import byte_tokenizer, word_tokenizer
from cegm.lab.train.tokens import opening, with_bytes
from openers import END, OPENINGS, TEMPLATES, opener


@pytest.mark.parametrize("how", TEMPLATES)
def test_the_opening_is_what_stands_before_any_text(how: str) -> None:
    tokenizer = opener(how)
    first = OPENINGS.get(how, ())
    assert opening(tokenizer) == first
    for text in ("x", " a b", "語", "<s> in words"):
        assert tuple(tokenizer(text)["input_ids"][: len(first)]) == first
    assert not opening(byte_tokenizer())
    assert not opening(word_tokenizer())


def test_a_tokenizer_that_knows_no_letter_still_has_its_opening() -> None:
    backend = Tokenizer(models.BPE(vocab={"[CLS]": 0, "b": 1}, merges=[]))  # drops what it cannot spell
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 0)])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="[CLS]")
    assert tokenizer("a", add_special_tokens=False)["input_ids"] == []
    assert opening(tokenizer) == (0,)


@pytest.mark.parametrize("how", TEMPLATES)
def test_openings_and_endings_stand_for_no_bytes(how: str) -> None:
    text = "Grüße, 世界! 🌍"
    ids, sizes = with_bytes(text, opener(how))
    first = OPENINGS.get(how, ())
    assert tuple(ids[: len(first)]) == first
    assert ids[-1] == END
    assert len(ids) == len(sizes) == len(first) + len(text.encode()) + 1
    assert sizes == [0.0] * len(first) + [1.0] * len(text.encode()) + [0.0]

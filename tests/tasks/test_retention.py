"""The axis itself is on trial: an oracle must get everything, guessing gets chance, and only the filler may grow."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import models

pytest.importorskip("transformers")

from cegm.tasks.retention import BINDINGS, HEAD, OPTIONS, TAIL, evaluate
from cegm.train.model import byte_tokenizer, word_tokenizer

TEXTS = [
    " ".join(
        f"Chapter {i}: the {i * 7919 % 1000}th letter said {i * 104729 % 99991} things of {i}." for i in range(2000)
    )
]


class History(list):
    """A cache that simply remembers the tokens."""

    def batch_repeat_interleave(self, count):
        assert len(self) == 1
        self[:] = [list(self[0]) for _ in range(count)]


class Reader(nn.Module):
    """A model that answers by `rule(tokens so far) -> logits over the vocabulary`, whatever its past."""

    def __init__(self, rule, positions=8192, vocabulary=400):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(max_position_embeddings=positions)
        self.rule, self.vocabulary = rule, vocabulary

    def forward(self, input_ids, past_key_values=None, use_cache=True, logits_to_keep=0):
        past = History([[]]) if past_key_values is None else past_key_values
        rows, logits = [], []
        for row, before in zip(input_ids.tolist(), past, strict=True):
            seen = list(before)
            own = []
            for token in row:
                seen.append(token)
                own.append(torch.zeros(self.vocabulary) if logits_to_keep else self.rule(seen, self.vocabulary))
            rows.append(seen)
            logits.append(torch.stack(own))
        return SimpleNamespace(logits=torch.stack(logits), past_key_values=History(rows))


def copier(seen, vocabulary):
    """Predicts whatever followed the longest earlier occurrence of the last tokens: perfect retention."""
    logits = torch.zeros(vocabulary)
    for width in (HEAD + TAIL - 1, 12, 6, 2):
        tail = seen[-width:]
        for start in range(len(seen) - width - 1, -1, -1):
            if seen[start : start + width] == tail:
                logits[seen[start + width]] = 20.0
                return logits
    return logits


def guesser(seen, vocabulary):
    generator = torch.Generator().manual_seed(hash(tuple(seen[-40:])) % 2**31)
    return torch.randn(vocabulary, generator=generator)


@pytest.mark.parametrize("data", ["world", TEXTS], ids=["generated", "real"])
def test_an_oracle_gets_everything(data):
    tokenizer = word_tokenizer() if data == "world" else byte_tokenizer()
    items = evaluate(Reader(copier), tokenizer, data=data, lengths=(512, 1024), items_per_length=BINDINGS)
    assert all(item["correct"] == 1 and item["score"] > 0 for item in items)
    assert len(items) == 2 * BINDINGS


@pytest.mark.parametrize("data", ["world", TEXTS], ids=["generated", "real"])
def test_a_guesser_gets_chance(data):
    tokenizer = word_tokenizer() if data == "world" else byte_tokenizer()
    items = evaluate(Reader(guesser), tokenizer, data=data, lengths=(512,), items_per_length=400)
    accuracy = sum(item["correct"] for item in items) / len(items)
    assert abs(accuracy - 1 / OPTIONS) < 4 * math.sqrt(0.25 * 0.75 / len(items))
    assert {item["chance"] for item in items} == {0.25}


def test_knowing_the_language_alone_gives_nothing():
    """Always preferring one option by its identity, or the latest person mentioned, is no better than chance."""

    def fixed(seen, vocabulary):
        return torch.arange(vocabulary).float()

    def latest(seen, vocabulary):
        logits = torch.zeros(vocabulary)
        for age, token in enumerate(reversed(seen)):
            logits[token] = max(logits[token], 1000.0 - age)
        return logits

    for rule in (fixed, latest):
        items = evaluate(Reader(rule), word_tokenizer(), lengths=(512,), items_per_length=400)
        accuracy = sum(item["correct"] for item in items) / len(items)
        assert abs(accuracy - 1 / OPTIONS) < 4 * math.sqrt(0.25 * 0.75 / len(items))


@pytest.mark.parametrize("data", ["world", TEXTS], ids=["generated", "real"])
def test_lengths_are_met_and_only_the_filler_grows(data, monkeypatch):
    tokenizer = word_tokenizer() if data == "world" else byte_tokenizer()
    asked = defaultdict(list)

    def record(model, context, questions, batch_size):
        asked[tuple(questions)].append(list(context))
        return [[0.0] * OPTIONS for _ in questions]

    monkeypatch.setattr("cegm.tasks.retention.score_options", record)
    items = evaluate(Reader(copier), tokenizer, data=data, lengths=(512, 2048, 8192), items_per_length=3 * BINDINGS)
    assert all(abs(item["achieved_length"] / item["level"] - 1) < 0.02 for item in items)
    assert len(asked) == 3, "questions differ between lengths"
    for questions, contexts in asked.items():
        assert len(questions) == BINDINGS
        for context in contexts:
            text = ",".join(map(str, context))
            for question in questions:
                assert ",".join(map(str, question.prompt + question.options[0])) in text


def test_depths_span_the_context_in_order():
    items = evaluate(Reader(guesser), word_tokenizer(), lengths=(512, 4096), items_per_length=8)
    for level in (512, 4096):
        depths = [item["depth"] for item in items if item["level"] == level]
        assert depths == sorted(depths)
        assert depths[0] < 0.15
        assert depths[-1] > 0.8


def test_batch_size_changes_nothing_on_a_real_model():
    model = models.llama(vocabulary=200)
    model.config.max_position_embeddings = 1024
    runs = [evaluate(model, word_tokenizer(), lengths=(512,), items_per_length=16, batch_size=size) for size in (1, 16)]
    for one, other in zip(*runs, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)


def asked_of(monkeypatch, **arguments):
    """(context, questions) of every context that `evaluate` has scored."""
    asked = []

    def record(model, context, questions, batch_size):
        asked.append((list(context), list(questions)))
        return [[0.0] * OPTIONS for _ in questions]

    monkeypatch.setattr("cegm.tasks.retention.score_options", record)
    evaluate(Reader(copier), arguments.pop("tokenizer"), **arguments)
    return asked


def test_the_same_seed_asks_the_same_and_another_does_not(monkeypatch):
    first, again, other = (
        asked_of(monkeypatch, tokenizer=word_tokenizer(), lengths=(512,), items_per_length=8, seed=s) for s in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_real_question_can_only_be_answered_from_what_was_planted(monkeypatch):
    """The head stands once in the context, and its natural continuation is neither planted nor an option."""
    tokenizer = byte_tokenizer()
    text = tokenizer.decode(tokenizer(TEXTS[0])["input_ids"])
    for context, questions in asked_of(
        monkeypatch, tokenizer=tokenizer, data=TEXTS, lengths=(2048,), items_per_length=48
    ):
        for question in questions:
            heads = [i for i in range(len(context) - HEAD + 1) if tuple(context[i : i + HEAD]) == question.prompt]
            assert len(heads) == 1
            head = tokenizer.decode(question.prompt)
            natural = text.split(head, 1)[1]
            assert not any(natural.startswith(tokenizer.decode(option)) for option in question.options)
            assert len(set(question.options)) == OPTIONS


def test_text_that_repeats_itself_or_is_no_text_is_a_one_line_error():
    with pytest.raises(ValueError, match="repeats itself"):
        evaluate(Reader(copier), byte_tokenizer(), data=["ab" * 5000], lengths=(512,))
    with pytest.raises(ValueError, match="held-out document 0 is a dict"):
        evaluate(Reader(copier), byte_tokenizer(), data=[{"messages": []}], lengths=(512,))
    with pytest.raises(ValueError, match="context length 128 cannot hold"):
        evaluate(Reader(copier), word_tokenizer(), lengths=(128,))


def test_lengths_beyond_the_model_and_too_little_text_are_one_line_errors():
    with pytest.raises(ValueError, match="context length 8192 is beyond the model's 1024 positions"):
        evaluate(Reader(copier, positions=1024), word_tokenizer())
    with pytest.raises(ValueError, match="hold out more text"):
        evaluate(Reader(copier), byte_tokenizer(), data=["short"])

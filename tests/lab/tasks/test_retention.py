"""The axis itself is on trial: an oracle must get everything, guessing gets chance, and only the filler may grow."""

import math
import random
import re
import shutil
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import models

pytest.importorskip("transformers")

from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.haystack import BINDINGS, HEAD, OPTIONS, TAIL, Stories, WorldFacts, novel_texts, without
from cegm.lab.tasks.items import NotMeasured
from cegm.lab.tasks.public import babi
from cegm.lab.tasks.retention import AXIS, LENGTHS, evaluate, measure
from cegm.lab.train.model import byte_tokenizer, word_tokenizer
from trials import DATA, everything_is_right, is_chance, names_are_unique, with_data

TEXTS = [
    " ".join(
        f"Chapter {i}: the {i * 7919 % 1000}th letter said {i * 104729 % 99991} things of {i}." for i in range(2000)
    )
]


class Reader(nn.Module):
    """A model that answers by `rule(tokens so far) -> logits over the vocabulary`."""

    def __init__(self, rule, positions=8192, vocabulary=400):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(max_position_embeddings=positions)
        self.rule, self.vocabulary = rule, vocabulary

    def forward(self, input_ids, use_cache=False, logits_to_keep=0):
        logits = []
        for row in input_ids.tolist():
            places = range(len(row))[-logits_to_keep:]
            logits.append(torch.stack([self.rule(row[: place + 1], self.vocabulary) for place in places]))
        return SimpleNamespace(logits=torch.stack(logits))


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
    assert everything_is_right(items)
    assert names_are_unique(items)
    assert len(items) == 2 * BINDINGS
    assert {item.form for item in items} == {"generated" if data == "world" else "real"}


@pytest.mark.parametrize("data", ["world", TEXTS], ids=["generated", "real"])
def test_a_guesser_gets_chance(data):
    tokenizer = word_tokenizer() if data == "world" else byte_tokenizer()
    items = evaluate(Reader(guesser), tokenizer, data=data, lengths=(512,), items_per_length=400)
    assert is_chance(items)
    assert {item.chance for item in items} == {0.25}


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
        accuracy = sum(item.score for item in items) / len(items)
        assert abs(accuracy - 1 / OPTIONS) < 4 * math.sqrt(0.25 * 0.75 / len(items))


@pytest.mark.parametrize("data", ["world", TEXTS], ids=["generated", "real"])
def test_lengths_are_met_and_only_the_filler_grows(data, monkeypatch):
    tokenizer = word_tokenizer() if data == "world" else byte_tokenizer()
    asked = defaultdict(list)

    def record(self, context, questions):
        asked[tuple(questions)].append(list(context))
        return [[0.0] * OPTIONS for _ in questions]

    monkeypatch.setattr(Examinee, "choose_after", record)
    evaluate(Reader(copier), tokenizer, data=data, lengths=(512, 2048, 8192), items_per_length=3 * BINDINGS)
    assert len(asked) == 3, "questions differ between lengths"
    for questions, contexts in asked.items():
        assert len(questions) == BINDINGS
        longest = max(len(question.prompt) + max(map(len, question.options)) for question in questions)
        for context, length in zip(contexts, (512, 2048, 8192), strict=True):
            assert abs((len(context) + longest) / length - 1) < 0.02
            text = ",".join(map(str, context))
            for question in questions:
                assert ",".join(map(str, question.prompt + question.options[0])) in text


def test_facts_span_the_context_in_the_order_of_their_names():
    plan = WorldFacts(word_tokenizer()).plan(0, 0)
    assert plan.names == tuple(f"0-{index}" for index in range(BINDINGS))
    for length in (512, 4096):
        text = ",".join(map(str, plan.context(length)))
        depths = [text.index(",".join(map(str, each))) / len(text) for each in plan.planted]
        assert depths == sorted(depths)
        assert depths[0] < 0.15
        assert depths[-1] > 0.8


def test_batch_size_changes_nothing_on_a_real_model():
    model = models.llama(vocabulary=len(word_tokenizer()))
    model.config.max_position_embeddings = 1024
    runs = [evaluate(model, word_tokenizer(), lengths=(512,), items_per_length=16, batch_size=size) for size in (1, 16)]
    for one, other in zip(*runs, strict=True):
        assert one.continuous == pytest.approx(other.continuous, abs=1e-4)


def asked_of(monkeypatch, **arguments):
    """(context, questions) of every context that `evaluate` has scored."""
    asked = []

    def record(self, context, questions):
        asked.append((list(context), list(questions)))
        return [[0.0] * OPTIONS for _ in questions]

    monkeypatch.setattr(Examinee, "choose_after", record)
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


class Marker:
    """Stands in for scoring: the first option, or any, whatever the model."""

    def __init__(self, rng=None):
        self.rng, self.asked = rng, []

    def __call__(self, context, questions):
        self.asked.append((list(context), list(questions)))
        return [
            [self.rng.random() if self.rng else -float(i) for i in range(len(question.options))]
            for question in questions
        ]


def marked(monkeypatch, source, items, rng=None, positions=8192):
    """Records of the axis and what it asked, with a tokenizer that fits the source."""
    marker = Marker(rng)
    monkeypatch.setattr(Examinee, "choose_after", marker)
    tokenizer = word_tokenizer() if source == "world" else byte_tokenizer()
    return AXIS.examine(Examinee(Reader(copier, positions), tokenizer), source, items, 0), marker.asked, tokenizer


def test_the_generated_axis(monkeypatch):
    records, _, _ = marked(monkeypatch, "world", 2 * BINDINGS)
    assert everything_is_right(records)
    assert names_are_unique(records)
    assert len(records) == len(LENGTHS) * 2 * BINDINGS
    assert {record.level for record in records} == set(LENGTHS)


def test_lengths_that_do_not_fit_are_left_out_with_a_warning(monkeypatch):
    with pytest.warns(UserWarning, match="not measured at 2048, 4096, 8192"):
        records, _, _ = marked(monkeypatch, "world", 16, positions=1500)
    assert {record.level for record in records} == {512, 1024}
    with pytest.raises(NotMeasured, match="reads 300 tokens"):
        marked(monkeypatch, "world", 16, positions=300)
    examinee = Examinee(Reader(copier, 512), byte_tokenizer())
    with pytest.raises(NotMeasured, match="facts alone take"):
        measure(examinee, "world", 64, 0, lengths=(256, 400))


@with_data
def test_the_real_axis(monkeypatch):
    records, asked, _ = marked(monkeypatch, DATA, 32, random.Random(0))
    assert names_are_unique(records)
    assert is_chance(records)
    counts = defaultdict(int)
    for record in records:
        counts[record.subset, record.level] += 1
    assert all(32 <= counts[subset, length] <= 36 for subset in ("passages", "babi") for length in LENGTHS)
    assert {(r.subset, r.chance) for r in records} == {("passages", 0.25), ("babi", 1 / 6)}
    for context, questions in asked:
        longest = max(len(question.prompt) + max(map(len, question.options)) for question in questions)
        assert min(abs((len(context) + longest) / length - 1) for length in LENGTHS) < 0.02
    assert everything_is_right(marked(monkeypatch, DATA, 32)[0])


@with_data
def test_a_story_in_novels_says_who_is_where_and_the_novels_do_not(monkeypatch):
    _, asked, tokenizer = marked(monkeypatch, DATA, 24)
    stories = [(context, questions) for context, questions in asked if len(questions[0].options) == 6]
    assert len(stories) > 3 * len(LENGTHS)
    for context, questions in stories:
        text = tokenizer.decode(context)
        for question in questions:
            person = tokenizer.decode(question.prompt).split()[2].removesuffix("?")
            said = re.findall(rf"\b{person} (?:went|moved|travelled|journeyed) (?:back )?to the (\w+)\.", text)
            assert text.count(person) == len(said)
            assert f" {said[-1]}" == tokenizer.decode(question.options[0])


def layout(tmp_path, text="One. Two! John went. Three? In the _kitchen_. Four.\r\n"):
    folder = tmp_path / "general_novels" / "corpus"
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / f"{name}.txt").write_bytes(b"\xef\xbb\xbf" + name.encode() + text.encode())
    return folder


def test_novels_come_in_seeded_order_without_mark_and_carriage_returns(tmp_path):
    folder = layout(tmp_path)
    texts = list(novel_texts(tmp_path, 0))
    assert sorted(text[0] for text in texts) == ["a", "b", "c"]
    assert all(text.endswith("Four.\n") for text in texts)
    assert len({tuple(text[0] for text in novel_texts(tmp_path, seed)) for seed in range(20)}) > 1
    (folder / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(NotMeasured, match=r"b\.txt is no UTF-8 text"):
        list(novel_texts(tmp_path, 0))
    shutil.rmtree(folder)
    with pytest.raises(NotMeasured, match="does not exist"):
        list(novel_texts(tmp_path, 0))
    folder.mkdir()
    with pytest.raises(NotMeasured, match=r"has no file \*.txt"):
        list(novel_texts(tmp_path, 0))


def test_sentences_that_name_what_is_asked_are_left_out():
    text = "One. Two! John went. Three? In the _Kitchen_. Four, Johnson."
    assert without(text, {"john", "kitchen"}) == "One. Two! Three? Four, Johnson."


def test_novels_without_stories_are_measured_with_a_warning(tmp_path, monkeypatch):
    layout(tmp_path, TEXTS[0] * 4)
    with pytest.warns(UserWarning, match="babi was not measured: .* does not exist"):
        records, _, _ = marked(monkeypatch, tmp_path, 16)
    assert {record.subset for record in records} == {"passages"}


def test_everyone_is_asked_for_after_the_whole_story(tmp_path):
    layout(tmp_path, "Something happened here. " * 500)
    folder = tmp_path / "babi" / "tasks_1-20_v1-2" / "en"
    folder.mkdir(parents=True)
    lines = [
        *(
            "1 John moved to the hall.",
            "2 Mary went to the park.",
            "3 Where is John?|hall|1",
            "4 Where is Mary?|park|2",
        ),
        *(
            "5 John went to the yard.",
            "6 Mary moved to the yard.",
            "7 Where is John?|yard|5",
            "8 Where is John?|yard|5",
        ),
    ]
    (folder / "qa1_x_test.txt").write_text("\n".join(lines) + "\n")
    tokenizer = byte_tokenizer()
    (plan,) = Stories(tokenizer, tmp_path, 0, 512).plans(5)
    asked = [tokenizer.decode(question.prompt) for question in plan.questions]
    assert asked == [" Where is John? Answer:", " Where is Mary? Answer:"]
    for question in plan.questions:
        assert [tokenizer.decode(option) for option in question.options] == [" yard", " hall", " park"]
    assert len(plan.planted) == 4
    assert plan.names == ("1-John", "1-Mary")


@with_data
def test_who_asks_for_everyone_agrees_with_the_questions_of_the_set():
    tokenizer = byte_tokenizer()
    answers = {q.name: q.answer for q in babi.read(DATA, 1)}
    last = {q.story: q for q in babi.read(DATA, 1)}
    right = {
        name: tokenizer.decode(question.options[0]).strip()
        for plan in Stories(tokenizer, DATA, 0, 512).plans(10_000)
        for name, question in zip(plan.names, plan.questions, strict=True)
    }
    assert len(right) > 3 * len(last)
    for story, question in last.items():
        person = question.text.removesuffix("?").split()[-1]
        assert right[f"{story}-{person}"] == answers[question.name]

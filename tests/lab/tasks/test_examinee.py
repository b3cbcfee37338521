"""Answers of a real model: the same for every batch size, equal to a slow oracle, and clear errors where it cannot sit the exam."""

import copy

import pytest
import torch

pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers.modeling_outputs import CausalLMOutput

from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import Choice, NotMeasured
from cegm.lab.train.model import byte_tokenizer, fresh_config, word_tokenizer
from openers import OPENINGS, TEMPLATES, opener

CHOICES = [
    Choice("the wind", (" bends", " falls asleep", " x")),
    Choice("a much longer context than the other one, with a comma", (" and", " or")),
    Choice("mira thanks bruno because", (" mira", " bruno"), " is kind ."),
]
TEXTS = ["a crow hums .", "it rains", "snow on the hills and all the valleys ."]


@pytest.fixture(scope="module", params=["llama", "gpt2", "reader"])
def model(request):
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    if request.param in ("llama", "reader"):
        shape = fresh_config("tiny" if request.param == "llama" else "reader", tokenizer)
        shape.max_position_embeddings = 512
        return AutoModelForCausalLM.from_config(shape).eval()
    shape = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=2, n_head=2)
    shape.initializer_range = 0.3
    return GPT2LMHeadModel(shape).eval()


def slow_log_probability(model, context, continuation):
    """One forward pass per token, in float64 sums."""
    tokenizer = byte_tokenizer()
    ids, total = tokenizer(context)["input_ids"], 0.0
    for token in tokenizer(continuation)["input_ids"]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[token])
        ids = [*ids, token]
    return total


def test_options_have_the_likelihood_of_the_slow_oracle(model):
    found = Examinee(model, byte_tokenizer()).choose(CHOICES)
    for choice, scores in zip(CHOICES, found, strict=True):
        for option, score in zip(choice.options, scores, strict=True):
            before = choice.context + option if choice.tail else choice.context
            assert score == pytest.approx(slow_log_probability(model, before, choice.tail or option), abs=1e-3)


def test_the_batch_size_changes_no_answer(model):
    one, many = (Examinee(model, byte_tokenizer(), batch_size=size) for size in (1, 16))
    for a, b in zip(one.choose(CHOICES), many.choose(CHOICES), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    for a, b in zip(one.read(TEXTS), many.read(TEXTS), strict=True):
        assert [t.log_probability for t in a] == pytest.approx([t.log_probability for t in b], abs=1e-4)
    assert one.embed(TEXTS) == pytest.approx(many.embed(TEXTS), abs=1e-4)
    assert one.write(TEXTS, 3) == many.write(TEXTS, 3)


PROMPTS = [*TEXTS, TEXTS[0] + TEXTS[2], "it rains", "w"]
"""Of very different lengths, and two alike."""


def written_slowly(model, prompt, tokens):
    """One forward pass over everything per token."""
    ids = byte_tokenizer()(prompt)["input_ids"]
    start = len(ids)
    for _ in range(tokens):
        with torch.no_grad():
            ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    return byte_tokenizer().decode(ids[start:])


@pytest.mark.parametrize("size", [1, 2, 16])
def test_writing_is_that_of_the_slow_oracle(model, size):
    slowly = [written_slowly(model, prompt, 12) for prompt in PROMPTS]
    assert Examinee(model, byte_tokenizer(), batch_size=size).write(PROMPTS, 12) == slowly
    assert len(set(slowly)) >= 4, "a model that says the same to all proves nothing"


@pytest.mark.parametrize("size", [1, 2, 16])
def test_a_text_ends_where_it_is_enough_and_the_others_go_on(model, size):
    slowly = [written_slowly(model, prompt, 12) for prompt in PROMPTS]
    lengths = iter([3, 7, 1, 12, 5, 2])
    enough = [slow[: next(lengths)] for slow in slowly]
    until = Examinee(model, byte_tokenizer(), batch_size=size).write(PROMPTS, 12, set(enough).__contains__)
    shortest = [min((e for e in enough if slow.startswith(e)), key=len) for slow in slowly]
    assert until == shortest


def test_writing_beyond_the_positions_is_not_measured(model):
    examinee = Examinee(model, byte_tokenizer())
    assert examinee.write(["a" * examinee.positions], 1)
    with pytest.raises(NotMeasured, match=f"{examinee.positions + 1} tokens"):
        examinee.write(["a" * examinee.positions, "b"], 2)
    assert examinee.write(["a" * examinee.positions, "b"], 2, lambda written: True)


def test_reading_adds_up_to_choosing(model):
    examinee = Examinee(model, byte_tokenizer())
    (tokens,) = examinee.read(["the wind bends"])
    ((whole,),) = examinee.choose([Choice("t", ("he wind bends",))])
    assert sum(token.log_probability for token in tokens) == pytest.approx(whole, abs=1e-3)
    assert [(t.start, t.end) for t in tokens] == [(i, i + 1) for i in range(1, len("the wind bends"))]


@pytest.mark.parametrize("batch_size", [1, 16])
def test_tokens_are_counted_once_per_reading_where_rows_share_them(model, batch_size):
    """One token is one byte here; the last token of a row is never read, and what rows begin with is read once."""
    examinee = Examinee(model, byte_tokenizer(), batch_size)
    examinee.choose([Choice("abcd", ("x", "y")), Choice("ab", ("xyz", "z"))])
    assert examinee.tokens == 4 + 2
    examinee.read(["abc", "abcdefg"])
    assert examinee.tokens == 6 + 6
    examinee.embed(["abcde"])
    assert examinee.tokens == 12 + 5
    examinee.write(["abc", "abcdef"], 3)
    assert examinee.tokens == 17 + (3 + 2) + (3 + 2)


def test_a_text_that_the_tokenizer_cannot_spell_is_refused(model):
    with pytest.raises(NotMeasured, match="cannot spell"):
        Examinee(model, word_tokenizer()).read(["a word that no world knows: entanglement"])


class Scripted:
    """Writes the ids it is given after each row, whatever it has read."""

    def __init__(self, ids):
        self.ids, self.tokens = iter(ids), 0

    def __call__(self, model, rows):
        assert len(rows) == 1
        return self

    def write(self):
        return [next(self.ids)]


@pytest.mark.parametrize("tokenizer", [word_tokenizer(), byte_tokenizer()])
def test_writing_keeps_white_space_and_ends_with_the_text(tokenizer, monkeypatch):
    """White space in front tells a new word from the end of the last one; decoders of words drop it."""
    whole = tokenizer("the crow hums")["input_ids"]
    new = whole[len(tokenizer("the crow")["input_ids"]) :]
    for ids, tokens in ((new, len(new)), ([*new, tokenizer.eos_token_id, *whole], len(new) + 2)):
        monkeypatch.setattr("cegm.lab.tasks.reader.Rereader", Scripted(ids))
        assert Examinee(torch.nn.Identity(), tokenizer).write(["the crow"], tokens) == [" hums"]


def test_studying_leaves_the_model_alone_and_repeats_bitwise(model):
    examinee = Examinee(model, byte_tokenizer())
    before = copy.deepcopy(model.state_dict())
    texts = ["the crow hums and the wind bends. " * 40]
    first, second = ([s.choose(CHOICES[:1]) for s in examinee.studied(texts, (0, 3), length=32)] for _ in range(2))
    assert first == second
    assert first[0] == examinee.choose(CHOICES[:1])
    assert first[1] != first[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_studying_lowers_the_loss_on_the_text(model):
    examinee = Examinee(model, byte_tokenizer())
    texts = ["the crow hums and the wind bends. " * 40]
    before, after = (
        sum(t.log_probability for t in s.read([texts[0][:100]])[0]) for s in examinee.studied(texts, (0, 30), length=32)
    )
    assert after > before + 10


def test_too_long_a_question_is_not_measured(model):
    examinee = Examinee(model, byte_tokenizer())
    with pytest.raises(NotMeasured, match="use a model with a longer context"):
        examinee.choose([Choice("a" * (examinee.positions + 1), (" b",))])


def test_too_little_text_to_study_is_not_measured(model):
    with pytest.raises(NotMeasured, match="give more text"):
        next(Examinee(model, byte_tokenizer()).studied(["short"], (0,)))


class Listener(torch.nn.Module):
    """Remembers every row it was given, its copies included, and says that any token may follow."""

    heard: list = []  # noqa: RUF012  # shared on purpose

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, output_hidden_states=False, **_):
        self.heard.extend(input_ids.tolist())
        logits = self.level * torch.ones(*input_ids.shape, 300)
        hidden = torch.arange(input_ids.shape[1]).float()[None, :, None].expand(len(input_ids), -1, 2)
        return CausalLMOutput(logits=logits, hidden_states=(hidden,) if output_hidden_states else None)


@pytest.mark.parametrize("how", TEMPLATES)
def test_whatever_is_asked_begins_as_the_tokenizer_begins_a_text(how):
    tokenizer, first = opener(how), list(OPENINGS.get(how, ()))
    examinee = Examinee(Listener(), tokenizer)
    Listener.heard.clear()
    examinee.choose(CHOICES)
    examinee.embed(["a crow"])
    (read,) = examinee.read(["ab c"])
    assert all(row[: len(first)] == first for row in Listener.heard)
    assert [(token.start, token.end) for token in read] == [(n, n + 1) for n in range(0 if first else 1, 4)]
    mean = examinee.embed(["abcd"])[0, 0]
    assert mean == len(first) + 1.5, "the opening itself is no part of a text"


@pytest.mark.parametrize("how", TEMPLATES)
def test_texts_that_are_studied_begin_alike(how):
    tokenizer, first = opener(how), list(OPENINGS.get(how, ()))
    Listener.heard.clear()
    list(Examinee(Listener(), tokenizer).studied(["one", "other", "third"], (1,), length=6, rows=2))
    expected = [
        t
        for text in ("one", "other", "third")
        for t in [*first, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    ]
    assert [token for row in Listener.heard for token in row] == expected[:12]

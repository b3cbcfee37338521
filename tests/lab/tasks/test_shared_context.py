"""Questions about one context, which is read once where a model can: equal to one pass per option, whoever reads."""

import pytest
import torch

pytest.importorskip("transformers")

from architectures import OTHERS, READERS, of
from cegm.lab.tasks.examinee import Examinee, Question
from cegm.lab.train.model import byte_tokenizer


def slow(model, context, questions):
    """One whole pass per option, in float64, token by token."""
    model = model.double().eval()
    result = []
    for question in questions:
        own = []
        for option in question.options:
            ids = [*context, *question.prompt, *option]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            start = len(ids) - len(option) - 1
            own.append(sum(float(logits[start + i, token]) for i, token in enumerate(option)))
        result.append(own)
    model.float()
    return result


@pytest.fixture(params=["gpt2", "llama, shared keys", "mistral, window of 4", "mamba", "bloom, no position_ids"])
def setting(request):
    model = of({**READERS, **OTHERS}[request.param])
    context = torch.randint(0, 60, (40,)).tolist()
    questions = [
        Question((3, 4), ((5,), (6,), (7,))),
        Question((8,), ((9, 10, 11), (9,), (12, 13))),
        Question((1, 2, 3, 4, 5), ((6, 7), (6, 8))),
    ]
    return model, context, questions


def score_options(model, context, questions, batch_size=16):
    return Examinee(model, byte_tokenizer(), batch_size).choose_after(context, questions)


def close(first, second):
    return all(
        a == pytest.approx(b, abs=1e-4) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_agrees_with_one_pass_per_option(setting):
    model, context, questions = setting
    assert close(score_options(model, context, questions), slow(model, context, questions))


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batch_size_and_padding_change_nothing(setting, batch_size):
    model, context, questions = setting
    assert close(
        score_options(model, context, questions, batch_size=batch_size), score_options(model, context, questions)
    )


def test_the_order_of_questions_changes_nothing(setting):
    model, context, questions = setting
    assert close(score_options(model, context, questions[::-1])[::-1], score_options(model, context, questions))


def test_the_context_and_what_rows_share_count_once_where_they_are_read_once():
    model, context = of(READERS["gpt2"]), [5] * 40
    questions = [Question((3, 4), ((5,), (6,), (7,))), Question((8,), ((9, 10, 11), (9,), (12, 13)))]
    examinee = Examinee(model, byte_tokenizer())
    examinee.choose_after(context, questions)
    assert examinee.tokens == len(context) + 2 + (1 + 2 + 1)

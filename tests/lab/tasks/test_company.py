"""A company's own task: who knows gets what word search offers, who has no idea chance, and a real model goes through all three kinds."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import mean

import numpy as np
import pytest

from cegm.lab.tasks import company
from cegm.lab.tasks.axes import PAPER
from cegm.lab.tasks.company_rows import Row
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import NotMeasured, stable_seed
from cegm.lab.train.model import byte_tokenizer
from models import llama

ANSWERS = ("refund", "limits", "delivery")


def row(task, number):
    answer = ANSWERS[number % 3]
    if task == "faq":
        return Row(f"r{number}", f"Tell me of the {answer} for order {number}", (answer,))
    if task == "search":
        return Row(
            f"r{number}", f"Where is thing{number}?", (f"Thing{number} or thing{number} lies in room {number}.",)
        )
    return Row(f"r{number}", f"It is about thing{number}. More follows here.", (f"About thing{number}.",))


@pytest.fixture
def written(tmp_path):
    def write(task, train=12, test=9):
        folder = tmp_path / "company"
        folder.mkdir(exist_ok=True)
        (folder / "test.jsonl").write_text("".join(row(task, n).line(task) for n in range(test)))
        (folder / "train.jsonl").write_text("".join(row(task, n).line(task) for n in range(100, 100 + train)))
        return str(tmp_path)

    return write


class Knower:
    """Finds an option likely that shares a long word with what is read, and embeds the meaning of a text."""

    positions = None

    def choose(self, choices):
        return [[float(len(words(each.context) & words(option))) for option in each.options] for each in choices]

    def embed(self, texts):
        key = [next((a for a in ANSWERS if a in text), next(iter(words(text)), "")) for text in texts]
        return np.stack([np.random.default_rng(stable_seed(each)).standard_normal(64) for each in key])

    def write(self, prompts, tokens, until):
        return [f" About {next(iter(words(prompt)))}.\n" for prompt in prompts]


def words(text):
    found = {word.strip(".?").lower() for word in text.split()}
    return {word for word in found if word.startswith("thing") or word in ANSWERS}


def means(records):
    scores = defaultdict(list)
    for record in records:
        scores[record.subset].append(record.score)
    return {subset: mean(own) for subset, own in scores.items()}


@pytest.mark.parametrize("task", ["faq", "search"])
def test_who_knows_gets_all_that_word_search_offers(written, task):
    found = means(company.AXIS.examine(Knower(), written(task), 9, 0))
    assert found["chosen"] == found["embedded"] == found["answered"] == found["control"] == 1


def test_a_right_answer_that_word_search_did_not_find_is_wrong(written, monkeypatch):
    monkeypatch.setitem(company.CANDIDATES, "search", 1)
    monkeypatch.setattr(company.WordSearch, "candidates", lambda *_: [["Nothing of it."]] * 9)
    records = company.AXIS.examine(Knower(), written("search"), 9, 0)
    assert means(records)["chosen"] == 0
    assert all(record.continuous > 0 for record in records if record.subset == "chosen")


def test_summaries_have_rouge_and_copies_and_the_first_sentence_as_control(written):
    found = means(company.AXIS.examine(Knower(), written("summaries"), 9, 0))
    assert found["rouge"] == 1
    assert found["control"] == pytest.approx(2 * 2 / (2 + 4))


def test_the_surest_four_fifths_are_answered(written):
    records = company.AXIS.examine(Knower(), written("faq"), 9, 0)
    assert sum(record.subset == "answered" for record in records) == round(0.8 * 9)


@pytest.mark.parametrize("task", ["faq", "search", "summaries"])
def test_a_real_model_goes_through_and_items_have_names_of_their_own(written, task):
    examinee = Examinee(llama(vocabulary=258), byte_tokenizer())
    examinee.model.config.max_position_embeddings = 512
    records = company.AXIS.examine(examinee, written(task), 5, 0)
    names = [(record.subset, record.item) for record in records]
    assert len(set(names)) == len(names)
    assert {record.item for record in records} == {
        record.item for record in records if record.subset in ("chosen", "rouge")
    }
    assert all(math.isfinite(record.score) for record in records)


def test_lessons_end_where_the_question_is_asked():
    assert company.lesson("faq", row("faq", 0)) == {
        "prompt": "Tell me of the refund for order 0\nAnswer:",
        "completion": " refund",
    }
    assert company.lesson("search", row("search", 1))["completion"] == " Where is thing1?"
    assert company.lesson("summaries", row("summaries", 2))["completion"] == " About thing2.\n"


def test_it_is_asked_when_it_is_named_only_and_says_what_is_missing(tmp_path):
    assert company.NAME not in PAPER
    with pytest.raises(NotMeasured, match="does not exist"):
        company.AXIS.examine(Knower(), str(tmp_path), 3, 0)
    (tmp_path / "company").mkdir()
    (tmp_path / "company" / "test.jsonl").write_text('{"other": 1}\n')
    with pytest.raises(NotMeasured, match="run cegm pilot fix again"):
        company.AXIS.examine(Knower(), str(tmp_path), 3, 0)

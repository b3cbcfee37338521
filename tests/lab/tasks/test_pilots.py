"""Pilots on real text: who knows gets everything, who guesses chance, and the baselines give the numbers the protocol names."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from examinees import Oracle

pytest.importorskip("bm25s")
pytest.importorskip("rouge_score")
pytest.importorskip("sklearn")

from transformers import AutoModelForCausalLM

from cegm.lab.tasks import faq, search, summaries
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import NotMeasured, stable_seed
from cegm.lab.tasks.public.documents import papers as read_papers
from cegm.lab.train.model import byte_tokenizer, fresh_config
from trials import DATA, with_data

PILOTS = [search, faq, summaries]


class Knower(Oracle):
    """Embeds texts that `means` says mean the same as the same direction; others anywhere."""

    def __init__(self, means, seed=0):
        self.means, self.rng = means, np.random.default_rng(seed)

    def embed(self, texts):
        return np.stack([self.vector(self.means(text)) for text in texts]).astype(np.float32)

    def vector(self, meaning):
        rng = self.rng if meaning is None else np.random.default_rng(stable_seed(meaning))
        return rng.standard_normal(64)


def paper(number, summaries=2):
    sentences = [f"Abstract {number} begins with word{number}.", f"It goes on about thing{number}."]
    told = [f"It is about thing{number}, says reader {reader}." for reader in range(summaries)]
    return {"paper_id": f"p{number}", "title": f"Title of {number}", "source": sentences, "target": told}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "sci_scitldr" / "SciTLDR-Data" / "SciTLDR-A"
    folder.mkdir(parents=True)
    for split, numbers in {"test": range(6), "dev": range(6, 9), "train": [*range(9, 12), 0]}.items():
        rows = [json.dumps(paper(number)) for number in numbers]
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
    folder = tmp_path / "faq_banking77" / "banking_data"
    folder.mkdir(parents=True)
    (folder / "categories.json").write_text('["card", "rate", "app"]')
    for split in ("train", "test"):
        rows = [
            f'"{split} asks, {number}, about {intent}",{intent}' for intent in ("card", "rate") for number in range(10)
        ]
        (folder / f"{split}.csv").write_text("\n".join(["text,category", *rows, f"{split} app?,app"]) + "\n")
    return tmp_path


def scores(records, subset):
    return [r.score for r in records if r.subset == subset]


def about(text):
    """Meaning of the fixture's texts: the number or the intent that they name."""
    digits = "".join(c for c in text.split("reader")[0] if c.isdigit())
    return next(
        (each for each in ("card", "rate", "app") if each in text), digits[:1] if len(digits) == 2 else digits[:2]
    )


@pytest.mark.parametrize("pilot", PILOTS)
def test_the_world_has_no_pilots_and_missing_sets_are_told(pilot, tmp_path):
    with pytest.raises(NotMeasured, match="pilot on real text"):
        pilot.AXIS.examine(Oracle(), "world", 3, 0)
    with pytest.raises(NotMeasured, match="does not exist"):
        pilot.AXIS.examine(Oracle(), tmp_path, 3, 0)


def test_search_counts_documents_before_the_right_one_and_ties():
    found = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert search.ranks(found, [0, 0, 0]) == [0, 1, 2]
    assert [search.gain(rank) for rank in (0, 1, 9, 10)] == [1, 1 / math.log2(3), 1 / math.log2(11), 0]


def test_search_knows_each_abstract_once_and_readers_summaries_only(source):
    documents, queries = search.collection(source)
    assert len(documents) == 12
    assert [(q.name, q.right) for q in queries] == [(f"p{n}-1", n) for n in range(6)]


def test_who_knows_finds_everything(source):
    documents, queries = search.collection(source)
    means = {q.text: q.right for q in queries} | {text: place for place, text in enumerate(documents)}
    records = search.AXIS.examine(Knower(means.get), source, 6, 0)
    assert scores(records, "model") == [1.0] * 6
    assert {r.continuous for r in records if r.subset == "model"} == {1.0}
    assert scores(records, "control: BM25") == [1.0] * 6
    assert {r.chance for r in records} == {1 / 12}


@with_data
def test_bm25_finds_what_the_protocol_says_and_who_guesses_finds_nothing():
    documents, queries = search.collection(DATA)
    right = [query.right for query in queries]
    found = search.ranks(search.bm25_scores(documents, queries), right)
    assert np.mean([rank == 0 for rank in found]) == pytest.approx(0.560, abs=0.01)
    guessed = search.ranks(search.cosine_scores(Knower(lambda text: None), documents, queries), right)
    assert binomtest(sum(rank == 0 for rank in guessed), len(guessed), 1 / len(documents)).pvalue > 0.01
    assert binomtest(sum(rank < 10 for rank in guessed), len(guessed), 10 / len(documents)).pvalue > 0.01


def test_who_knows_answers_every_customer(source):
    records = faq.AXIS.examine(Knower(about), source, 21, 0)
    assert scores(records, "model") == [1.0] * 21
    assert len(scores(records, "answered by model")) == round(0.8 * 21)
    assert {r.chance for r in records} == {1 / 3}
    assert len({(r.subset, r.item) for r in records}) == len(records)


def test_the_surest_are_those_with_the_widest_gap():
    classes = ["a", "b"]
    asked = [faq.Query(str(n), "", "a") for n in range(5)]
    gaps = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.4], [0.8, 0.1], [0.5, 0.5]])
    records = faq._records("model", asked, gaps, classes)
    assert scores(records, "model") == [1, 0, 1, 1, 0]
    assert [r.item for r in records if r.subset == "answered by model"] == ["0", "1", "2", "3"]


@with_data
def test_customers_of_the_real_bank():
    classes = faq.intents(DATA)
    known, test = faq.queries(DATA, "train"), faq.queries(DATA, "test")
    assert (len(classes), len(known), len(test)) == (77, 10_003, 3_080)
    guesser, intents = Knower(lambda text: None), [query.intent for query in known]
    found = faq.similarities(guesser.embed(intents), intents, guesser.embed([q.text for q in test]), classes)
    guessed = [r.score for r in faq._records("model", test, found, classes)][: len(test)]
    assert binomtest(int(sum(guessed)), len(test), 1 / 77).pvalue > 0.01
    first, second = faq.words_weighted([q.text for q in known], [q.text for q in test])
    control = faq._records("model", test, faq.similarities(first, intents, second, classes), classes)
    assert np.mean(scores(control, "model")) == pytest.approx(0.81, abs=0.01)
    assert np.mean(scores(control, "answered by model")) > np.mean(scores(control, "model"))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("text\tcategory\n", r"test\.csv, line 1: columns"),
        ("text,category\nwhere is it,card\nwhat is it,dog\n", "line 3: no text with a known intent"),
        ('text,category\nwhere is it,card\n"what is', "line 3: unexpected end"),
    ],
)
def test_a_damaged_bank_names_file_and_line(source, damage, told):
    (source / "faq_banking77" / "banking_data" / "test.csv").write_text(damage)
    with pytest.raises(NotMeasured, match=told):
        faq.queries(source, "test")


def test_an_intent_without_examples_is_told(source):
    (source / "faq_banking77" / "banking_data" / "train.csv").write_text("text,category\nwhere,card\n")
    with pytest.raises(NotMeasured, match="no question of app"):
        faq.AXIS.examine(Oracle(), source, 3, 0)


def test_who_knows_summarises_perfectly(source):
    papers = {p.abstract + summaries.CUE: p for p in read_papers(source, "test")}
    oracle = Oracle(lambda prompt: f" {papers[prompt].summaries[1]}\nAnd so on.")
    records = summaries.AXIS.examine(oracle, source, 6, 0)
    assert scores(records, "model") == [1.0] * 6
    assert scores(records, "control: title") != scores(records, "control: first sentence")
    assert set(scores(records, "copied by first sentence")) == {1.0}
    assert len({(r.subset, r.item) for r in records}) == len(records)


def test_silence_is_no_summary(source):
    records = [r for r in summaries.AXIS.examine(Oracle(lambda prompt: " \n "), source, 6, 0) if "model" in r.subset]
    assert [(r.score, r.readable) for r in records] == [(0.0, False)] * 6


def test_copying_is_counted_in_triples():
    assert summaries.copied("a b c d", "A b c x") == 0.5
    assert math.isnan(summaries.copied("a b c", "a b"))


@with_data
def test_copying_the_title_scores_what_the_protocol_says():
    papers = read_papers(DATA, "test")
    title, first = (
        np.mean([summaries.rouge(p.summaries, c(p))[0] for p in papers]) for c in summaries.CONTROLS.values()
    )
    assert title == pytest.approx(0.404, abs=0.01)
    assert first < title


@pytest.mark.parametrize("pilot", PILOTS)
def test_the_batch_size_and_a_second_run_change_nothing(pilot, source):
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    model = AutoModelForCausalLM.from_config(fresh_config("tiny", tokenizer))
    one, many, again = (pilot.AXIS.examine(Examinee(model, tokenizer, size), source, 3, 0) for size in (1, 16, 16))
    assert str(many) == str(again)
    assert [r.continuous for r in one] == pytest.approx([r.continuous for r in many], abs=1e-4)

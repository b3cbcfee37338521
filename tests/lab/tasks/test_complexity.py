"""Token accuracy by complexity: gold spans, whole words, the control, minimal pairs."""

import math
from collections import Counter

import pytest
import torch
from scipy.stats import binomtest

from examinees import Guesser, Oracle

pytest.importorskip("conllu")

from transformers import AutoModelForCausalLM

from cegm.lab.tasks.complexity import (
    AXIS,
    BINS,
    DEPTHS,
    Sentence,
    commonest_word,
    judged,
    minimal_pairs,
    nested_sentences,
    treebank_sentences,
)
from cegm.lab.tasks.examinee import Examinee, ReadToken
from cegm.lab.tasks.items import NotMeasured
from cegm.lab.train.model import byte_tokenizer, fresh_config
from trials import DATA, with_data


def words_of(records):
    return [r for r in records if r.subset in AXIS.primary]


def test_the_oracle_guesses_every_word_at_every_depth():
    records = words_of(AXIS.examine(Oracle(), "world", 10, 0))
    assert Counter(r.level for r in records) == dict.fromkeys(DEPTHS, 10)
    assert {(r.score, r.continuous, r.readable) for r in records} == {(1.0, 0.0, True)}
    assert len({(r.item, r.level) for r in records}) == len(records)


def test_the_guesser_gets_what_it_guesses():
    """It has one token in a hundred right, as `Guesser.read` says."""
    records = words_of(AXIS.examine(Guesser(), "world", 300, 0))
    words = [(r.level + 1, round(r.score * (r.level + 1))) for r in records]
    total, right = (int(sum(each)) for each in zip(*words, strict=True))
    assert binomtest(right, total, 0.01).pvalue > 0.01


def test_the_same_seed_gives_the_same_sentences_and_another_others():
    texts = [[s.text for s in nested_sentences(20, seed)] for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert all(s.text[a:b].strip() == s.text[a:b] != "" for s in nested_sentences(20, 0) for a, b in s.words)


def test_a_word_is_right_only_with_all_its_tokens_and_only_if_all_are_scored():
    sentence = Sentence("s", "s", "ab cd ef", ((0, 2), (3, 5), (6, 8)), 1)
    tokens = [
        ReadToken(1, 2, -1.0, True),  # `a` has nothing before it: `ab` does not count
        ReadToken(2, 4, -1.0, True),
        ReadToken(4, 5, -2.0, False),
        ReadToken(5, 8, -5.0, True),
    ]
    assert judged(sentence, tokens) == (0.5, -4.0)
    assert judged(Sentence("s", "s", "ab", ((0, 2),), 0), tokens[:1]) is None


def test_the_commonest_word():
    sentences = [Sentence("a", "a", "The cat", ((0, 3), (4, 7)), 1), Sentence("b", "b", "the the", ((0, 3), (4, 7)), 1)]
    assert commonest_word(sentences) == [0.5, 1.0]
    records = [r for r in AXIS.examine(Oracle(), "world", 50, 0) if r.subset.startswith("control")]
    assert 0.02 < sum(r.score for r in records) / len(records) < 0.25


def small(batch_size):
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    return Examinee(AutoModelForCausalLM.from_config(fresh_config("tiny", tokenizer)), tokenizer, batch_size)


def test_the_batch_size_changes_nothing():
    one, many = (AXIS.examine(small(size), "world", 3, 0) for size in (1, 16))
    assert [r.score for r in one] == [r.score for r in many]
    read = [[r.continuous for r in words_of(records)] for records in (one, many)]
    assert read[0] == pytest.approx(read[1], abs=1e-4)


@with_data
def test_the_oracle_and_the_guesser_on_public_sets():
    records = AXIS.examine(Oracle(), DATA, 70, 0)
    assert {r.score for r in records if not r.subset.startswith("control")} == {1.0}
    assert Counter(r.level for r in records if r.subset == "ud_ewt") == dict.fromkeys(BINS, 70)
    pairs = [r for r in records if r.subset == "blimp"]
    assert (len(pairs), len({r.cluster for r in pairs})) == (70, 67)
    assert len({(r.subset, r.item) for r in records}) == len(records)


@with_data
def test_the_guesser_has_half_of_the_pairs():
    guessed = minimal_pairs(Guesser(), DATA, 1000, 0)
    assert {r.chance for r in guessed} == {0.5}
    assert binomtest(int(sum(r.score for r in guessed)), 1000, 0.5).pvalue > 0.01


@with_data
def test_the_same_sentences_of_the_treebank_for_every_model():
    first, again = (treebank_sentences(DATA, 5, 0) for _ in range(2))
    assert first == again


def test_sets_that_are_missing_are_told_and_the_other_measured(tmp_path):
    with pytest.raises(NotMeasured, match="ud_ewt"):
        AXIS.examine(Oracle(), tmp_path, 3, 0)
    (tmp_path / "ud_ewt").mkdir()
    tree = (
        "# sent_id = {0}\n# text = It rains\n1\tIt\t_\tPRON\t_\t_\t2\t_\t_\t_\n2\trains\t_\tVERB\t_\t_\t0\t_\t_\t_\n\n"
    )
    for split in ("dev", "test"):
        (tmp_path / "ud_ewt" / f"en_ewt-ud-{split}.conllu").write_text(tree.format(split))
    with pytest.warns(UserWarning, match=r"BLiMP\.zip"):
        records = AXIS.examine(Oracle(), tmp_path, 3, 0)
    assert len(words_of(records)) == 2
    assert all(math.isnan(r.chance) for r in records)

"""Semantic drift: who puts every word back does not drift, who draws them at random drifts furthest, silence is told."""

import json
import math

import numpy as np
import pytest
import torch

from examinees import Guesser, Oracle

pytest.importorskip("sklearn")

from transformers import AutoModelForCausalLM

from cegm.lab import world
from cegm.lab.tasks.drift import (
    AFTER_A_WORD,
    AXIS,
    BY_MINILM,
    SETS,
    UNREADABLE,
    Gap,
    chain,
    kept,
    masks,
    meaning,
    overlap,
    passages,
    rare_words,
    shuffled,
    stories,
    written_by,
)
from cegm.lab.tasks.examinee import Examinee
from cegm.lab.tasks.items import NotMeasured
from cegm.lab.train.model import byte_tokenizer, fresh_config
from trials import DATA, with_data


def remembering(texts):
    """An oracle that has seen all texts and goes on with the one that begins like the prompt."""
    return Oracle(lambda prompt: next(t for t in texts if t.startswith(prompt))[len(prompt) :])


def mean(records, subset, step):
    scores = [r.score for r in records if (r.subset, r.level) == (subset, step)]
    return sum(scores) / len(scores)


def test_who_remembers_does_not_drift():
    """One story at a time: several may begin alike."""
    seeds = range(5)
    records = [r for seed in seeds for r in AXIS.examine(remembering(stories(1, seed).originals), "world", 1, seed)]
    assert {r.score for r in records if "shuffled" not in r.subset} == {1.0}
    assert {r.continuous for r in records if "shuffled" not in r.subset} == {1.0}
    assert all(r.readable and r.cluster == r.item and math.isnan(r.chance) for r in records)


def test_the_shuffled_chain_falls_with_every_step_or_so():
    records = AXIS.examine(Oracle(lambda prompt: " a"), "world", 40, 0)
    curve = [mean(records, "control: shuffled model", step) for step in range(1, 11)]
    assert curve[0] > curve[4] > curve[9]
    assert len({(r.subset, r.item, r.level) for r in records}) == len(records) == 3 * 40 * 10
    assert curve[9] < 0.3
    assert {r.subset for r in records} & set(AXIS.primary) == {"model"}
    assert mean(records, "model", 10) < mean(records, "control: identity model", 10) == 1


def test_silence_leaves_a_placeholder_and_is_told():
    records = AXIS.examine(Oracle(lambda prompt: ""), "world", 3, 0)
    assert not any(r.readable for r in records if r.subset == "model")
    assert all(r.readable for r in records if r.subset != "model")
    assert UNREADABLE not in "".join(stories(3, 0).originals)


@pytest.mark.parametrize(
    ("written", "word"),
    [(" hums .", "hums"), ("s , and", ","), ("ory", ""), ("", ""), ("\n\nnext one", "next"), ("   ", "")],
)
def test_what_belongs_to_the_word_in_front_is_no_refill(written, word):
    """`the crow` + `s , and`: the first piece ends `crow`, the word after it is `,`."""
    assert written_by(Oracle(lambda prompt: written))([Gap(0, 2, "the crow")]) == [word]


@pytest.mark.parametrize(
    ("written", "enough"), [(" entangle", False), (" hums ", True), ("s hums", False), ("s hums\n", True)]
)
def test_writing_ends_behind_the_first_whole_word(written, enough):
    assert bool(AFTER_A_WORD.search(written)) == enough


def test_masks_are_the_same_for_every_model_and_spare_the_first_word():
    assert masks(60, "a", 1) == masks(60, "a", 1) != masks(60, "a", 2)
    assert len(masks(60, "a", 1)) == 9
    assert masks(2, "a", 1) == [1]
    assert all(0 not in masks(20, "a", step) for step in range(1, 11))


def test_a_later_mask_is_refilled_after_an_earlier_one():
    asked = []
    texts = stories(1, 0)

    def refill(gaps):
        asked.extend(gaps)
        return ["new"] * len(gaps)

    next(chain(texts, refill, 1))
    assert asked[1].before.split()[asked[0].place] == "new"


def test_facts_overlap():
    one, two = world.facts_in("friend of"), frozenset([("a", "b", "c"), ("a", "b", "d")])
    assert one == frozenset()
    assert overlap(two, two) == 1
    assert overlap(one, two) == 0
    assert overlap(frozenset([("a", "b", "c"), ("x", "y", "z")]), two) == 0.5


def test_words_that_no_original_has_make_a_text_less_similar():
    judge = rare_words(["red green blue", "one two three"])
    same, turned = judge(["red green blue", "three two one"])
    assert (same, turned) == (pytest.approx(1), pytest.approx(0.5, abs=0.1))
    half, other = judge(["red green unheard", "red green blue"])
    assert 0.3 < half < 0.7
    assert other == 0


def test_controls():
    texts = ["a b c", "d e f"]
    gaps = [Gap(0, 1, ""), Gap(1, 2, "")]
    assert kept(texts)(gaps) == ["b", "f"]
    assert set(shuffled(texts, 0)(gaps * 50)) == set("abcdef")
    assert shuffled(texts, 0)(gaps * 9) == shuffled(texts, 0)(gaps * 9)


def test_the_same_seed_gives_the_same_records_and_another_others():
    first, again, other = (AXIS.examine(Oracle(lambda p: " mira"), "world", 3, seed) for seed in (0, 0, 1))
    assert str(first) == str(again) != str(other)


def test_a_set_that_is_missing_is_told_and_the_other_measured(tmp_path):
    with pytest.raises(NotMeasured, match="sci_scitldr"):
        AXIS.examine(Guesser(), tmp_path, 2, 0)
    path = tmp_path / "sci_scitldr" / "SciTLDR-Data" / "SciTLDR-A" / "test.jsonl"
    path.parent.mkdir(parents=True)
    row = {"paper_id": "p", "title": "t", "source": ["A few words of it."], "target": ["Short."]}
    path.write_text(json.dumps(row))
    with pytest.warns(UserWarning, match="legal_sitepolicy"):
        records = AXIS.examine(Oracle(lambda prompt: " word"), tmp_path, 2, 0)
    assert {r.subset.removesuffix(BY_MINILM).split()[-1] for r in records} == {"abstracts"}


class Turned:
    """Embeds a text by how often each of four words comes in it, and points the other way for `not`."""

    def embed(self, texts):
        counted = np.array([[text.split().count(word) for word in "abcd"] for text in texts], np.float32)
        signs = np.array([[-1.0 if "not" in text else 1.0] for text in texts], np.float32)
        return signs * counted / np.linalg.norm(counted, axis=1, keepdims=True)


def test_what_points_away_from_the_original_is_as_unlike_it_as_can_be():
    assert meaning(Turned(), ["a b", "c", "d"])(["a b", "c d", "not d"]) == pytest.approx([1, 0.5**0.5, 0])


def test_a_second_judge_has_subsets_of_its_own_that_do_not_count(tmp_path, monkeypatch):
    path = tmp_path / "sci_scitldr" / "SciTLDR-Data" / "SciTLDR-A" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"paper_id": "p", "title": "t", "source": ["a b c d " * 5], "target": ["Short."]}))
    by_words = {}
    for judge in (None, Turned()):
        monkeypatch.setattr("cegm.lab.tasks.drift.minilm", lambda judge=judge: judge)
        with pytest.warns(UserWarning, match="legal_sitepolicy"):
            records = AXIS.examine(Oracle(lambda prompt: " a"), tmp_path, 2, 0)
        chains = {"abstracts", "control: identity abstracts", "control: shuffled abstracts"}
        both = chains | {f"{name} by MiniLM" for name in chains if judge}
        assert {r.subset for r in records} == both
        assert both & set(AXIS.primary) == {"abstracts"}
        by_words[judge] = str([r for r in records if r.subset in chains])
    assert len(set(by_words.values())) == 1, "who else judges changes nothing"


@with_data
@pytest.mark.parametrize("subset", SETS)
def test_on_public_sets_the_judge_has_room_between_the_controls(subset):
    texts = passages(subset, DATA, 20, 0)
    assert len(set(texts.names)) == 20
    for judge in texts.judges.values():
        for _, words in chain(texts, kept(texts.originals), 1):
            assert judge([" ".join(mine) for mine in words]) == pytest.approx([1.0] * 20)
        *_, (_, words) = chain(texts, shuffled(texts.originals, 0), 1)
        scores = judge([" ".join(mine) for mine in words])
        assert 0.1 < sum(scores) / 20 < 0.7


def small(batch_size):
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    return Examinee(AutoModelForCausalLM.from_config(fresh_config("tiny", tokenizer)), tokenizer, batch_size)


def test_the_batch_size_changes_nothing(monkeypatch):
    monkeypatch.setattr("cegm.lab.tasks.drift.STEPS", 1)
    one, many = (AXIS.examine(small(size), "world", 2, 0) for size in (1, 16))
    assert str(one) == str(many)

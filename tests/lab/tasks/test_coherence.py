"""Nearness on trial: who knows the meaning gets everything, a random space chance, a collapsed one and a bag of words nothing."""

import numpy as np
import pytest

pytest.importorskip("transformers")

from cegm.lab import world
from cegm.lab.tasks.coherence import AXIS, Words, cases, cosines, judged
from cegm.lab.tasks.items import NotMeasured
from cegm.lab.tasks.lookalikes import Case
from examinees import Oracle
from trials import DATA, batches_change_nothing, is_chance, names_are_unique, with_data

REAL = ("syntactic", "contextual", "dropout", "mixed")


def vector(name, hidden=64):
    return np.random.default_rng(name).standard_normal(hidden).astype(np.float32)


class Knows(Oracle):
    """Gives texts of one meaning the same vector."""

    def __init__(self, source, techniques, items, seed):
        self.meanings = {}
        for technique in techniques:
            for case in cases(source, technique, items, seed):
                known = self.meanings.get(case.anchor, self.meanings.get(case.rephrased, len(self.meanings)))
                self.meanings[case.anchor] = self.meanings[case.rephrased] = known

    def embed(self, texts):
        return np.stack([vector(self.meanings.get(text, 10**6 + place)) for place, text in enumerate(texts)])


class Random(Oracle):
    """Any vector for any text."""

    def embed(self, texts):
        rng = np.random.default_rng(0)
        return rng.standard_normal((len(texts), 64)).astype(np.float32)


class Bag(Oracle):
    """Counts words."""

    def embed(self, texts):
        words = {word: place for place, word in enumerate(sorted({word for text in texts for word in text.split()}))}
        found = np.zeros((len(texts), len(words)), np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                found[row, words[word]] += 1
        return found


class Collapsed(Oracle):
    """The same vector for every text, up to what float32 makes of it."""

    def embed(self, texts):
        return (np.full((len(texts), 64), 3.0) + np.random.default_rng(0).normal(0, 1e-7, (len(texts), 64))).astype(
            "f4"
        )


def test_an_oracle_gets_everything_and_the_items_are_sound():
    records = AXIS.examine(Knows("world", world.TECHNIQUES, 40, 0), "world", 40, 0)
    assert names_are_unique(records)
    assert {r.axis for r in records} == {AXIS.name}
    assert {r.subset for r in records} == set(world.TECHNIQUES)
    assert all(r.score == 1 and r.continuous > 0.3 for r in records)  # equal meanings may be drawn twice


def test_a_random_space_gets_chance_and_a_collapsed_one_nothing():
    assert is_chance(AXIS.examine(Random(), "world", 400, 0))
    assert all(r.score == 0 and r.continuous < 0.1 for r in AXIS.examine(Collapsed(), "world", 40, 0))


def test_a_bag_of_words_cannot_tell_who_did_what():
    syntactic = [r for r in AXIS.examine(Bag(), "world", 40, 0) if r.subset == "syntactic"]
    assert sum(r.score for r in syntactic) < 0.3 * len(syntactic)


def test_the_batch_size_changes_nothing():
    batches_change_nothing(AXIS, 4)


def test_cosines_are_taken_from_the_middle():
    rng = np.random.default_rng(0)
    far = (rng.standard_normal((200, 32)) + 30).astype(np.float32)
    raw = far @ far.T / np.outer(np.linalg.norm(far, axis=1), np.linalg.norm(far, axis=1))
    off = ~np.eye(200, dtype=bool)
    assert raw[off].min() > 0.99  # a collapsed space: all texts look alike
    found = cosines(far)
    assert abs(found[off].mean()) < 0.01
    assert np.diag(found) == pytest.approx(1)
    centred = far.astype(np.float64) - far.astype(np.float64).mean(0)
    slow = [[u @ v / np.linalg.norm(u) / np.linalg.norm(v) for v in centred] for u in centred]
    assert found == pytest.approx(np.array(slow), abs=1e-12)


def test_the_rank_counts_anchors_that_are_as_near():
    class Placed(Oracle):
        def embed(self, texts):
            places = {"a": 0, "a2": 40, "b": 30, "b2": 100, "c": 200, "c2": 210, "n": 300}
            return np.array([[np.cos(np.radians(places[t])), np.sin(np.radians(places[t]))] for t in texts], np.float32)

    asked = [Case(x, x, x, f"{x}2", ("n",)) for x in ("a", "b", "c")]
    records = judged(Placed(), "generated", "lexical", asked)
    assert [r.continuous for r in records] == [0.5, 1.0, 1.0]  # from a2, b is nearer than a
    same = judged(Placed(), "generated", "lexical", [Case("1", "1", "a", "b", ("b",))])
    assert (same[0].score, same[0].chance) == (0.0, 0.5)


def test_words_alone_are_rare_or_common():
    near = cosines(Words().embed(["the red fox", "the red dog", "a blue sky", "the"]))
    assert near[0, 1] > near[0, 2]
    assert near[0, 1] == near[1, 0] < 1


def test_on_real_text_others_embed_the_same_cases(monkeypatch):
    asked = [Case(str(i), str(i), f"text {i}", f"text {i} again", (f"other {i}",)) for i in range(3)]
    monkeypatch.setattr("cegm.lab.tasks.coherence.cases", lambda *_: asked)
    for judge, names in ((None, ["TF-IDF"]), (Random(), ["TF-IDF", "MiniLM"])):
        monkeypatch.setattr("cegm.lab.tasks.coherence.minilm", lambda judge=judge: judge)
        records = AXIS.examine(Collapsed(), "a folder", 3, 0)
        expected = {*world.TECHNIQUES, *(f"control: {name} {each}" for name in names for each in world.TECHNIQUES)}
        assert {r.subset for r in records} == expected
        assert names_are_unique(records)
        assert all(r.score == 0 for r in records if r.subset in AXIS.primary)
    assert {r.subset for r in AXIS.examine(Collapsed(), "world", 3, 0)} == set(world.TECHNIQUES)


def test_nothing_there_is_not_measured(tmp_path):
    with pytest.raises(NotMeasured, match=r"lexical was not measured.*test\.tsv does not exist"):
        AXIS.examine(Random(), tmp_path, 9, 0)


@with_data
def test_the_public_sets_are_measured():
    knows = Knows(DATA, REAL, 40, 0)
    with pytest.warns(UserWarning, match="lexical was not measured"):
        records = AXIS.examine(knows, DATA, 40, 0)
    assert names_are_unique(records)
    assert {r.axis for r in records} == {AXIS.name}
    own = [r for r in records if r.subset in AXIS.primary]
    assert {r.subset for r in own} == set(REAL)
    assert len(own) == 160
    assert all(r.score == 1 for r in own)
    assert {f"control: TF-IDF {technique}" for technique in REAL} <= {r.subset for r in records}
    asked = {technique: cases(DATA, technique, 150, 1) for technique in REAL}
    assert is_chance([r for technique in REAL for r in judged(Random(), "real", technique, asked[technique])])
